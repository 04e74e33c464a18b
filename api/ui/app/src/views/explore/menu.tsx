// Share and export: what leaves the page.
import { useEffect, useRef, useState } from 'preact/hooks';
import { Button, copyText, errorText } from '../../core/ui';
import { Icon, paths } from '../../shell/icons';

export interface MenuProps {
  disabled: boolean;
  /** Which files there are of what is shown. */
  pictures: boolean;
  scripts: boolean;
  csv: () => void;
  png: () => Promise<void>;
  svg: () => void;
  gnuplot: () => Promise<void>;
  matplotlib: () => Promise<void>;
}

export function ExportMenu(props: MenuProps) {
  const [open, setOpen] = useState(false);
  const [error, setError] = useState<unknown>();
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!open) return;
    const outside = (e: Event) => {
      if (!box.current?.contains(e.target as Node)) setOpen(false);
    };
    document.addEventListener('pointerdown', outside);
    box.current?.querySelector<HTMLElement>('.menu button:not(:disabled)')?.focus();
    return () => document.removeEventListener('pointerdown', outside);
  }, [open]);
  const items: { id: string; text: string; hint: string; on: boolean; run: () => void | Promise<void> }[] = [
    { id: 'csv', text: 'CSV', hint: 'the values that are shown', on: true, run: props.csv },
    { id: 'png', text: 'PNG', hint: 'the graph with axes and legend', on: props.pictures, run: props.png },
    { id: 'svg', text: 'SVG', hint: 'the same, for print', on: props.pictures, run: props.svg },
    { id: 'gnuplot', text: 'gnuplot', hint: 'one file with its data', on: props.scripts, run: props.gnuplot },
    { id: 'matplotlib', text: 'matplotlib', hint: 'one Python file with its data', on: props.scripts, run: props.matplotlib },
  ];
  const close = () => {
    setOpen(false);
    box.current?.querySelector<HTMLElement>('button')?.focus();
  };
  const start = async (run: () => void | Promise<void>) => {
    setError(undefined);
    try {
      await run();
      close();
    } catch (e) {
      setError(e);
    }
  };
  const key = (e: KeyboardEvent) => {
    if (!open) return;
    if (e.key === 'Escape') close();
    if (e.key !== 'ArrowDown' && e.key !== 'ArrowUp') return;
    e.preventDefault();
    const stops = [...(box.current?.querySelectorAll<HTMLElement>('.menu button:not(:disabled)') ?? [])];
    const at = stops.indexOf(document.activeElement as HTMLElement);
    stops[(at + (e.key === 'ArrowDown' ? 1 : stops.length - 1)) % stops.length]?.focus();
  };
  return (
    <div class="menu-host" ref={box} onKeyDown={key}>
      <button
        type="button" class="button button-small" aria-haspopup="menu" aria-expanded={open} disabled={props.disabled} data-testid="export-menu"
        onClick={() => { setError(undefined); setOpen(!open); }}
      >
        <Icon d={paths.down} />Export
      </button>
      {open && (
        <div class="menu" role="menu" aria-label="Export">
          {items.map((item) => (
            <button type="button" role="menuitem" key={item.id} disabled={!item.on} data-testid={`export-${item.id}`} onClick={() => void start(item.run)}>
              <span>{item.text}</span><span class="dim">{item.hint}</span>
            </button>
          ))}
          <div role="alert">{error !== undefined && <div class="error-box menu-error">{errorText(error)}</div>}</div>
        </div>
      )}
    </div>
  );
}

export function ShareButton(props: { link: () => string }) {
  const [said, setSaid] = useState('');
  useEffect(() => {
    if (said === '') return;
    const timer = setTimeout(() => setSaid(''), 2500);
    return () => clearTimeout(timer);
  }, [said]);
  return (
    <span class="share">
      <Button small title="Copies a link that always shows these times" testid="share-link" onClick={async () => setSaid((await copyText(props.link())) ? 'Link copied' : 'Copy it from the address bar')}>
        <Icon d={paths.link} />Share
      </Button>
      <span role="status" class="share-said">{said}</span>
    </span>
  );
}
