// What to do while there are no samples but the server's own.
import { address } from '../core/api';
import { CopyText } from '../core/ui';
import type { PageFacts } from '../core/page';

export function FirstSteps(props: { facts: PageFacts }) {
  const write = props.facts.writeURL || new URL(address('write'), document.baseURI).href;
  const base = props.facts.externalURL || new URL('.', document.baseURI).href.replace(/\/$/, '');
  const yaml = `remote_write:\n  - url: ${write}`;
  return (
    <section class="card first" data-testid="first-steps" aria-labelledby="first-title">
      <header class="card-head"><h2 id="first-title">No samples have arrived yet</h2></header>
      <div class="card-body">
        <p>Varve keeps what is sent to it. So far it has only its own metrics. This box goes away with the first sample.</p>
        <ol class="steps">
          <li>
            <strong>Point a Prometheus here.</strong> Add this to its configuration, then reload it:
            <CopyText block text={yaml} label="the remote_write configuration" />
          </li>
          <li>
            <strong>Or bring the past in</strong> from the data directory of a Prometheus, where Varve's binary is:
            <CopyText block text={`varve import tsdb --url ${base} /var/lib/prometheus`} label="the import command" />
          </li>
          <li>
            <strong>Or send from elsewhere:</strong> Telegraf, OpenTelemetry and others, with what to write into their files, are under <a href="#/configuration">Configuration</a>.
          </li>
          <li>
            <strong>Let Grafana read it:</strong> add a data source of type Prometheus with this URL:{' '}
            <CopyText text={base} label="the address for Grafana" />
          </li>
        </ol>
        {location.protocol === 'http:' && ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname) && (
          <p class="dim">You see this page on the server itself. If other machines shall reach it, start it with <code>--web.listen-address</code> and the address they use.</p>
        )}
      </div>
    </section>
  );
}
