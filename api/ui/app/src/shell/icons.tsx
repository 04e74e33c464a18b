// Small drawings, in the colour of the text around them.
import type { ComponentChildren } from 'preact';
import type { Theme } from '../core/theme';

/** Logo is three layers of sediment, as public/logo.svg has them. */
export function Logo() {
  return (
    <svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="7" fill="#0e5a63" />
      <path d="M6 9.5c5-2.4 8-2.4 12 0s6 1.8 8 .2" fill="none" stroke="#f2d8a0" stroke-width="3" stroke-linecap="round" />
      <path d="M6 16c4.5-1.6 8-1.2 12 .6s6 1.3 8 0" fill="none" stroke="#7fc8c4" stroke-width="3.6" stroke-linecap="round" />
      <path d="M6 22.8c5-1.2 9-.4 12 .6s6 .6 8-.2" fill="none" stroke="#e9f4f2" stroke-width="2.2" stroke-linecap="round" />
    </svg>
  );
}

/** Icon draws a path of strokes in a box of 16 by 16. */
export function Icon(props: { d: string; children?: ComponentChildren }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round">
      <path d={props.d} />
      {props.children}
    </svg>
  );
}

export function ThemeIcon(props: { theme: Theme }) {
  switch (props.theme) {
    case 'light':
      return <Icon d="M8 1.5v1.2M8 13.3v1.2M1.5 8h1.2M13.3 8h1.2M3.4 3.4l.85.85M11.75 11.75l.85.85M12.6 3.4l-.85.85M4.25 11.75l-.85.85"><circle cx="8" cy="8" r="3" /></Icon>;
    case 'dark':
      return <Icon d="M13.2 9.6A5.7 5.7 0 0 1 6.4 2.8 5.7 5.7 0 1 0 13.2 9.6z" />;
    default:
      return <Icon d="M8 2.3v11.4"><circle cx="8" cy="8" r="5.7" /><path d="M8 2.3a5.7 5.7 0 0 1 0 11.4z" fill="currentColor" stroke="none" /></Icon>;
  }
}

export const paths = {
  back: 'M10 3L5 8l5 5',
  forward: 'M6 3l5 5-5 5',
  plus: 'M8 3v10M3 8h10',
  cross: 'M4 4l8 8M12 4l-8 8',
  play: 'M5 3.5v9l7.5-4.5z',
  stop: 'M4.5 4.5h7v7h-7z',
  link: 'M6.8 9.2a2.6 2.6 0 0 0 3.7 0l2-2a2.6 2.6 0 0 0-3.7-3.7l-.9.9M9.2 6.8a2.6 2.6 0 0 0-3.7 0l-2 2a2.6 2.6 0 0 0 3.7 3.7l.9-.9',
  down: 'M8 2.5v8M4.8 7.5L8 10.7l3.2-3.2M3 13.5h10',
  history: 'M2.5 8a5.5 5.5 0 1 0 1.7-4M2.5 2.5v3h3M8 5v3.2l2 1.3',
  zoomOut: 'M2.5 7a4.5 4.5 0 1 0 9 0 4.5 4.5 0 1 0-9 0M10.5 10.5l3 3M5 7h4',
  refresh: 'M13.5 8A5.5 5.5 0 1 1 11.8 4M13.5 2.5v3h-3',
  eye: 'M1.5 8S4 3.5 8 3.5 14.5 8 14.5 8 12 12.5 8 12.5 1.5 8 1.5 8zM6 8a2 2 0 1 0 4 0 2 2 0 1 0-4 0',
  eyeOff: 'M2 2l12 12M6.3 3.8A6.5 6.5 0 0 1 8 3.5c4 0 6.5 4.5 6.5 4.5a11 11 0 0 1-2 2.5M4 5.3A11 11 0 0 0 1.5 8S4 12.5 8 12.5a6.3 6.3 0 0 0 2.5-.5',
} as const;
