// Colours of series: made in OKLCH, whose lightness is what the eye sees, and written as #rrggbb, which files understand too.

/** oklch turns lightness 0..1, chroma and hue in degrees into #rrggbb, with less chroma where the screen has not so much. */
export function oklch(lightness: number, chroma: number, hue: number): string {
  for (let c = chroma; ; c -= 0.01) {
    const rgb = linear(lightness, Math.max(c, 0), hue);
    if (c <= 0 || rgb.every((v) => v >= -0.001 && v <= 1.001)) {
      return `#${rgb.map((v) => Math.round(gamma(Math.min(1, Math.max(0, v))) * 255).toString(16).padStart(2, '0')).join('')}`;
    }
  }
}

// The matrices are those of Björn Ottosson's definition of Oklab.
function linear(l: number, c: number, h: number): [number, number, number] {
  const a = c * Math.cos((h * Math.PI) / 180);
  const b = c * Math.sin((h * Math.PI) / 180);
  const x = (l + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const y = (l - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const z = (l - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * x - 3.3077115913 * y + 0.2309699292 * z,
    -1.2684380046 * x + 2.6097574011 * y - 0.3413193965 * z,
    -0.0041960863 * x - 0.7034186147 * y + 1.707614701 * z,
  ];
}

const gamma = (v: number) => (v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055);

/** familyHues are the hues of the first, second, ... query: far apart one after the other. */
const familyHues = [205, 45, 145, 320, 95, 265, 15, 175];

/** familyColor is the colour of a query's family. */
export function familyColor(query: number, dark: boolean): string {
  return oklch(dark ? 0.74 : 0.55, 0.13, familyHues[query % familyHues.length]!);
}

/** kin are how the series of a family differ from its colour: in lightness, and by a turn of the hue. */
const kin: readonly [number, number][] = [[0, 0], [-0.17, 26], [0.15, -14], [-0.04, -38], [0.09, 36], [-0.22, -20]];

/**
 * seriesColor is the colour of the n-th series of a query. A query that is alone may use all hues; else each stays near the hue of its
 * family, and its series differ in lightness as well.
 */
export function seriesColor(query: number, n: number, alone: boolean, dark: boolean): string {
  const hue = familyHues[query % familyHues.length]!;
  const base = dark ? 0.74 : 0.56;
  if (alone) {
    // The golden angle puts each next hue into the largest space that is left.
    const ring = Math.floor(n / 8) % 3;
    return oklch(base + [0, 0.1, -0.1][ring]! * (dark ? 0.8 : 1), 0.135, hue + n * 137.508);
  }
  const [light, turn] = kin[n % kin.length]!;
  const round = (Math.floor(n / kin.length) % 3) * 9;
  return oklch(base + light * (dark ? 0.8 : 1), 0.13, hue + turn + round);
}

/** heatColor is the colour of a share 0..1 of a heatmap: one hue that turns a little, from near the background to far from it. */
export function heatColor(share: number, dark: boolean): string {
  const s = Math.min(1, Math.max(0, share));
  return dark ? oklch(0.29 + 0.62 * s, 0.045 + 0.085 * Math.sin(Math.PI * s), 235 - 125 * s) : oklch(0.95 - 0.66 * s, 0.025 + 0.1 * Math.sin(Math.PI * (0.1 + 0.7 * s)), 190 + 75 * s);
}
