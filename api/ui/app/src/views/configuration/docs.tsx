// Where to read more: the server's own pages for machines, the documents that come with it, and upstream's language.
import { Card } from '../../core/ui';

interface Link {
  href: string;
  title: string;
  about: string;
}

// They are relative to the page, which may be served below a prefix.
const here: Link[] = [
  { href: 'metrics', title: 'Metrics', about: 'of the server itself, for Prometheus and for alert rules' },
  { href: 'api/v1/status/tsdb', title: 'Storage', about: 'series, labels and bytes as JSON, in Prometheus’ form' },
  { href: 'api/v1/status/config', title: 'Configuration', about: 'as JSON' },
  { href: '-/ready', title: 'Ready', about: 'for probes: whether samples and queries are taken' },
  { href: '-/healthy', title: 'Healthy', about: 'for probes: whether the process is alive' },
];

const elsewhere: Link[] = [
  { href: 'https://prometheus.io/docs/prometheus/latest/querying/basics/', title: 'PromQL', about: 'the language of queries' },
  { href: 'https://prometheus.io/docs/prometheus/latest/querying/functions/', title: 'Functions of PromQL', about: 'and of native histograms' },
  { href: 'https://prometheus.io/docs/prometheus/latest/querying/api/', title: 'HTTP API', about: 'which Varve answers at the same paths' },
];

const documents: { file: string; about: string }[] = [
  { file: 'README.md', about: 'what is where' },
  { file: 'install.md', about: 'packages, containers, first start' },
  { file: 'configuration.md', about: 'every setting with its default' },
  { file: 'flags.md', about: 'every command and flag' },
  { file: 'operations.md', about: 'running it from day to day' },
  { file: 'sizing.md', about: 'how much disk, memory and cores' },
  { file: 'tuning.md', about: 'what to set when the defaults don’t fit' },
  { file: 'backup.md', about: 'snapshots, and how to restore one' },
  { file: 'upgrade.md', about: 'from one version to the next' },
  { file: 'troubleshooting.md', about: 'by symptom' },
  { file: 'migration.md', about: 'from other stores' },
  { file: 'metrics.md', about: 'what the server tells of itself' },
  { file: 'dashboards.md', about: 'for Grafana, and alert rules' },
  { file: 'exports.md', about: 'results as files and figures' },
  { file: 'security.md', about: 'users, tokens, rights, and what is not defended' },
  { file: 'ARCHITECTURE.md', about: 'how a sample gets in and an answer out' },
  { file: 'format/README.md', about: 'every byte on disk' },
];

export function Docs() {
  return (
    <Card title="Read more" testid="docs-links">
      <div class="stack">
        <Links title="From this server" links={here} />
        <Links title="The language" links={elsewhere} away />
        <section>
          <h3>Documents that come with Varve</h3>
          <p class="dim">In <code>/usr/share/doc/varve</code> where a package installed it, in <code>docs</code> of the source. <code>man varve</code> and <code>varve help</code> say the rest.</p>
          <ul class="links">
            {documents.map((d) => <li key={d.file}><code>{d.file}</code> <span class="dim">{d.about}</span></li>)}
          </ul>
        </section>
      </div>
    </Card>
  );
}

function Links(props: { title: string; links: Link[]; away?: boolean }) {
  return (
    <section>
      <h3>{props.title}</h3>
      <ul class="links">
        {props.links.map((l) => (
          <li key={l.href}>
            <a href={l.href} {...(props.away ? { target: '_blank', rel: 'noopener noreferrer' } : {})}>{l.title}</a> <span class="dim">{l.about}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
