// Files of what is seen.
import { askFile } from '../../core/api';
import { drawFigure, heightOf, type Figure } from './figure';
import { CanvasSurface, SvgSurface } from './surface';
import type { Grid } from './range';

/** fileName makes a name for a file of a title: short, and of characters that every system takes. */
export function fileName(title: string, millis: number, extension: string): string {
  const stem = title.replace(/[^a-zA-Z0-9]+/g, '-').replace(/^-+|-+$/g, '').slice(0, 60) || 'query';
  return `varve-${stem}-${new Date(millis).toISOString().slice(0, 16).replace(/[-:]/g, '').replace('T', '-')}.${extension}`;
}

/** save hands a file to the browser's downloads. */
export function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  // The download holds the blob by then.
  setTimeout(() => URL.revokeObjectURL(url), 30_000);
}

export function saveText(text: string, type: string, name: string): void {
  save(new Blob([text], { type: `${type};charset=utf-8` }), name);
}

/** savePNG draws at twice the size, for screens and paper that have the pixels. */
export async function savePNG(figure: Figure, name: string): Promise<void> {
  const surface = new CanvasSurface(figure.width, heightOf(figure), 2);
  drawFigure(surface, figure);
  const blob = await new Promise<Blob | null>((resolve) => surface.canvas.toBlob(resolve, 'image/png'));
  if (!blob) throw new Error('The browser could not make a PNG of this size. Try SVG, or fewer series.');
  save(blob, name);
}

export function saveSVG(figure: Figure, name: string): void {
  const surface = new SvgSurface(figure.width, heightOf(figure));
  drawFigure(surface, figure);
  saveText(surface.document(figure.title), 'image/svg+xml', name);
}

export interface ServerExport {
  queries: string[];
  grid: Grid;
  resolution: string;
  title: string;
  format: 'gnuplot' | 'matplotlib';
}

/** saveFromServer fetches a file that the server makes, so that an error is shown rather than downloaded. */
export async function saveFromServer(e: ServerExport, name: string, signal?: AbortSignal): Promise<void> {
  save(await askFile('export/query', {
    query: e.queries,
    start: e.grid.start / 1000,
    end: e.grid.end / 1000,
    step: e.grid.step / 1000,
    format: e.format,
    title: e.title,
    resolution: e.resolution === 'auto' ? undefined : e.resolution,
  }, signal), name);
}
