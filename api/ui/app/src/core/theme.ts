// Light or dark: as the system has it, or as was chosen.
import { createStore, useStore } from './store';
import { useEffect, useState } from 'preact/hooks';

export type Theme = 'system' | 'light' | 'dark';

export const theme = createStore<Theme>('system', 'theme', (v) => v === 'system' || v === 'light' || v === 'dark');

const systemDark = matchMedia('(prefers-color-scheme: dark)');

/** isDark tells how the page looks now. */
export function isDark(): boolean {
  return theme.get() === 'dark' || (theme.get() === 'system' && systemDark.matches);
}

function apply(): void {
  const chosen = theme.get();
  if (chosen === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
}

apply();
theme.subscribe(apply);

/** nextTheme is what a press of the toggle chooses: what is not seen now, then what the system has, then the system's choice again. */
export function nextTheme(): Theme {
  const [same, other]: [Theme, Theme] = systemDark.matches ? ['dark', 'light'] : ['light', 'dark'];
  return theme.get() === 'system' ? other : theme.get() === other ? same : 'system';
}

/** useDark is isDark, and renders again when that changes. */
export function useDark(): boolean {
  useStore(theme);
  const [, render] = useState(0);
  useEffect(() => {
    const changed = () => render((n) => n + 1);
    systemDark.addEventListener('change', changed);
    return () => systemDark.removeEventListener('change', changed);
  }, []);
  return isDark();
}

/** cssColor is the value of a CSS variable such as --text, for what is drawn on a canvas. */
export function cssColor(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
