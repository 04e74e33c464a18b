// The configuration that is in effect, with search.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { get } from '../../core/api';
import { count } from '../../core/format';
import { usePage } from '../../core/page';
import { usePoll } from '../../core/poll';
import { Button, Card, classes, copyText, Empty, ErrorBox, Field, Loading } from '../../core/ui';
import { missing, OutcomeLine, useActions } from '../pipeline/action';
import { find, marked, sections, tokens } from './yaml';

const pollSeconds = 60;

export function ConfigYAML() {
  const { facts } = usePage();
  const { data, error, reload } = usePoll((signal) => get<{ yaml: string }>('status/config', undefined, signal), pollSeconds);
  const actions = useActions();
  const yaml = data?.yaml ?? '';
  return (
    <Card
      title="Configuration in effect" note="secrets are hidden by the server"
      actions={
        <>
          <Button
            small disabled={facts !== undefined && !facts.lifecycle} confirm="Read the file again?" testid="config-reload"
            title={facts !== undefined && !facts.lifecycle ? 'Off: start the server with --web.enable-lifecycle and log in as somebody who may do lifecycle, or send it SIGHUP' : 'Read the configuration file again'}
            onClick={async () => {
              await actions.run('The configuration was not changed', reloadConfig, (text) => text);
              reload();
            }}
          >
            Reload
          </Button>
          <Button small disabled={yaml === ''} testid="config-copy" onClick={() => actions.run('Nothing was copied', () => copyText(yaml), (done) => (done ? 'The configuration was copied.' : { good: false, text: 'The browser did not allow it: select the text and copy it.' }))}>Copy</Button>
        </>
      }
    >
      {!missing(error) && <ErrorBox error={error} retry={reload} title={data ? 'Not up to date:' : undefined} />}
      <OutcomeLine actions={actions} testid="config-outcome" />
      {missing(error) ? <Empty testid="config-yaml">Not available in this build of the server.</Empty> : !data ? !error && <Loading /> : <Text yaml={yaml} />}
    </Card>
  );
}

/** reloadConfig asks for what SIGHUP does. The answer is plain text, and so is what is wrong with the file. */
async function reloadConfig(): Promise<string> {
  const response = await fetch('-/reload', { method: 'POST', credentials: 'same-origin' });
  const text = (await response.text()).trim();
  if (!response.ok) throw new Error(text.slice(0, 2000) || `the server answered ${response.status}`);
  return text;
}

function Text(props: { yaml: string }) {
  const lines = useMemo(() => props.yaml.replace(/\n$/, '').split('\n'), [props.yaml]);
  const heads = useMemo(() => sections(lines), [lines]);
  const [wanted, setWanted] = useState('');
  const [at, setAt] = useState(0);
  const found = useMemo(() => find(lines, wanted), [lines, wanted]);
  const current = found.length > 0 ? found[at % found.length] : undefined;
  const host = useRef<HTMLPreElement>(null);

  const show = (line: number | undefined) => {
    const pre = host.current;
    const row = line === undefined ? undefined : (pre?.children[line] as HTMLElement | undefined);
    // Only the box scrolls, not the page.
    if (pre && row) pre.scrollTop = row.offsetTop - pre.offsetTop - pre.clientHeight / 3;
  };
  useEffect(() => show(current), [current]);
  const step = (by: number): void => {
    if (found.length > 0) setAt((at + by + found.length) % found.length);
  };

  return (
    <div class="stack">
      <div class="config-bar">
        <Field label="Search the configuration" hideLabel class="grow">
          {(ids) => (
            <input
              id={ids.id} type="search" placeholder="Search" value={wanted} data-testid="config-search" autocomplete="off" spellcheck={false}
              onInput={(e) => {
                setWanted(e.currentTarget.value);
                setAt(0);
              }}
              onKeyDown={(e) => {
                if (e.key !== 'Enter') return;
                e.preventDefault();
                step(e.shiftKey ? -1 : 1);
              }}
            />
          )}
        </Field>
        <span class="dim tabular" role="status" data-testid="config-found">
          {wanted.trim() === '' ? '' : found.length === 0 ? 'not found' : `${count((at % found.length) + 1)} of ${count(found.length)} lines`}
        </span>
        <Button small kind="quiet" label="The line before that was found" disabled={found.length < 2} onClick={() => step(-1)}>▲</Button>
        <Button small kind="quiet" label="The next line that was found" disabled={found.length < 2} onClick={() => step(1)}>▼</Button>
        <Field label="Section" hideLabel>
          {(ids) => (
            <select
              id={ids.id} value="" data-testid="config-section"
              onChange={(e) => {
                show(Number(e.currentTarget.value));
                e.currentTarget.value = '';
              }}
            >
              <option value="" disabled>Go to…</option>
              {heads.map((h) => <option key={h.name} value={String(h.line)}>{h.name}</option>)}
            </select>
          )}
        </Field>
      </div>
      <pre class="yaml" ref={host} tabIndex={0} aria-label="The configuration as YAML" data-testid="config-yaml">
        {lines.map((line, n) => <Line key={n} line={line} n={n} wanted={found.includes(n) ? wanted : ''} current={n === current} />)}
      </pre>
    </div>
  );
}

/** Line ends with its line break, so that what is selected is copied as it is in the file. */
function Line(props: { line: string; n: number; wanted: string; current: boolean }) {
  const parts = props.wanted !== ''
    ? marked(props.line, props.wanted).map((t, i) => (i % 2 === 1 ? <mark key={i}>{t}</mark> : t))
    : tokens(props.line).map((t, i) => (t.kind === 'plain' ? t.text : <span key={i} class={`yaml-${t.kind}`}>{t.text}</span>));
  return <span class={classes('yaml-line', props.current && 'yaml-current')} data-line={props.n + 1}>{parts}{'\n'}</span>;
}
