// Two things that a figure can be drawn on, a canvas and an SVG document, so that both files look the same.

export interface Surface {
  rect(x: number, y: number, w: number, h: number, fill: string): void;
  /** Lines through points x0, y0, x1, y1, ... */
  line(points: readonly number[], color: string, width: number): void;
  area(points: readonly number[], fill: string, opacity: number): void;
  text(x: number, y: number, text: string, o: { size: number; color: string; anchor?: 'start' | 'middle' | 'end'; bold?: boolean; turned?: boolean }): void;
  /** The width of text in pixels. */
  measure(text: string, size: number, bold?: boolean): number;
  clip(x: number, y: number, w: number, h: number, draw: () => void): void;
}

const family = '"Helvetica Neue", Helvetica, Arial, "Liberation Sans", "DejaVu Sans", sans-serif';
const font = (size: number, bold?: boolean) => `${bold ? '600 ' : ''}${size}px ${family}`;

let ruler: CanvasRenderingContext2D | null | undefined;

function measure(text: string, size: number, bold?: boolean): number {
  ruler ??= document.createElement('canvas').getContext('2d');
  if (!ruler) return text.length * size * 0.55;
  ruler.font = font(size, bold);
  return ruler.measureText(text).width;
}

export class CanvasSurface implements Surface {
  readonly canvas = document.createElement('canvas');
  private readonly c: CanvasRenderingContext2D;

  constructor(width: number, height: number, scale: number) {
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const c = this.canvas.getContext('2d');
    if (!c) throw new Error('This browser has no canvas to draw the picture on.');
    this.c = c;
    c.scale(scale, scale);
    c.lineJoin = 'round';
  }

  rect(x: number, y: number, w: number, h: number, fill: string): void {
    this.c.fillStyle = fill;
    this.c.fillRect(x, y, w, h);
  }

  line(points: readonly number[], color: string, width: number): void {
    this.c.strokeStyle = color;
    this.c.lineWidth = width;
    this.c.beginPath();
    for (let i = 0; i + 1 < points.length; i += 2) this.c.lineTo(points[i]!, points[i + 1]!);
    this.c.stroke();
  }

  area(points: readonly number[], fill: string, opacity: number): void {
    this.c.fillStyle = fill;
    this.c.globalAlpha = opacity;
    this.c.beginPath();
    for (let i = 0; i + 1 < points.length; i += 2) this.c.lineTo(points[i]!, points[i + 1]!);
    this.c.closePath();
    this.c.fill();
    this.c.globalAlpha = 1;
  }

  text(x: number, y: number, text: string, o: { size: number; color: string; anchor?: 'start' | 'middle' | 'end'; bold?: boolean; turned?: boolean }): void {
    this.c.save();
    this.c.font = font(o.size, o.bold);
    this.c.fillStyle = o.color;
    this.c.textAlign = o.anchor === 'middle' ? 'center' : (o.anchor ?? 'start');
    this.c.translate(x, y);
    if (o.turned) this.c.rotate(-Math.PI / 2);
    this.c.fillText(text, 0, 0);
    this.c.restore();
  }

  measure(text: string, size: number, bold?: boolean): number {
    return measure(text, size, bold);
  }

  clip(x: number, y: number, w: number, h: number, draw: () => void): void {
    this.c.save();
    this.c.beginPath();
    this.c.rect(x, y, w, h);
    this.c.clip();
    draw();
    this.c.restore();
  }
}

/** escapeXML makes any text safe inside an element or an attribute. What XML can't hold at all is shown as U+FFFD. */
export function escapeXML(text: string): string {
  return text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '\ufffd')
    .replace(/[&<>"']/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' })[c]!);
}

const r = (n: number) => String(Math.round(n * 100) / 100);

export class SvgSurface implements Surface {
  private readonly parts: string[] = [];
  private clips = 0;

  constructor(private readonly width: number, private readonly height: number) {}

  rect(x: number, y: number, w: number, h: number, fill: string): void {
    this.parts.push(`<rect x="${r(x)}" y="${r(y)}" width="${r(w)}" height="${r(h)}" fill="${fill}"/>`);
  }

  line(points: readonly number[], color: string, width: number): void {
    this.parts.push(`<polyline points="${points.map(r).join(' ')}" fill="none" stroke="${color}" stroke-width="${width}" stroke-linejoin="round"/>`);
  }

  area(points: readonly number[], fill: string, opacity: number): void {
    this.parts.push(`<polygon points="${points.map(r).join(' ')}" fill="${fill}" fill-opacity="${opacity}"/>`);
  }

  text(x: number, y: number, text: string, o: { size: number; color: string; anchor?: 'start' | 'middle' | 'end'; bold?: boolean; turned?: boolean }): void {
    const turn = o.turned ? ` transform="rotate(-90 ${r(x)} ${r(y)})"` : '';
    this.parts.push(`<text x="${r(x)}" y="${r(y)}" font-size="${o.size}" fill="${o.color}"${o.anchor ? ` text-anchor="${o.anchor}"` : ''}${o.bold ? ' font-weight="600"' : ''}${turn} xml:space="preserve">${escapeXML(text)}</text>`);
  }

  measure(text: string, size: number, bold?: boolean): number {
    return measure(text, size, bold);
  }

  clip(x: number, y: number, w: number, h: number, draw: () => void): void {
    const id = `c${this.clips++}`;
    this.parts.push(`<clipPath id="${id}"><rect x="${r(x)}" y="${r(y)}" width="${r(w)}" height="${r(h)}"/></clipPath><g clip-path="url(#${id})">`);
    draw();
    this.parts.push('</g>');
  }

  document(title: string): string {
    return `<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="${this.width}" height="${this.height}" viewBox="0 0 ${this.width} ${this.height}" font-family="${escapeXML(family)}">\n<title>${escapeXML(title)}</title>\n${this.parts.join('\n')}\n</svg>\n`;
  }
}
