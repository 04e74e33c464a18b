// What to write into the configuration of those that send or read, with this server's address in it.

export interface Sender {
  key: string;
  title: string;
  /** Where it goes, and what to know. */
  about: string;
  file: string;
  text: string;
}

/** addresses are the server's own URL without a slash at its end, and where remote write goes. */
export interface Addresses {
  base: string;
  write: string;
}

/** addressesOf takes what the server says of itself, else where the page was loaded from. */
export function addressesOf(facts: { externalURL?: string; writeURL?: string } | undefined, page: string): Addresses {
  const base = trimSlash(facts?.externalURL || new URL('.', page).href);
  return { base, write: facts?.writeURL || `${base}/api/v1/write` };
}

function trimSlash(url: string): string {
  return url.replace(/[#?].*$/, '').replace(/\/+$/, '');
}

/** senders are the usual ones, the most usual first. */
export function senders(a: Addresses): Sender[] {
  return [
    {
      key: 'prometheus',
      title: 'Prometheus',
      about: 'Prometheus sends on what it scrapes. Thanos, Mimir’s agents, vmagent and Grafana Alloy take the same address.',
      file: 'prometheus.yml',
      text: `remote_write:\n  - url: ${a.write}\n`,
    },
    {
      key: 'grafana',
      title: 'Grafana',
      about: 'Grafana reads: a data source of the type Prometheus.',
      file: 'provisioning/datasources/varve.yml',
      text: `apiVersion: 1\ndatasources:\n  - name: Varve\n    type: prometheus\n    access: proxy\n    url: ${a.base}\n    jsonData:\n      httpMethod: POST\n      prometheusType: Prometheus\n`,
    },
    {
      key: 'telegraf',
      title: 'Telegraf',
      about: 'Measurements and fields become metrics: cpu with usage_idle is cpu_usage_idle. Any bucket and organization will do.',
      file: 'telegraf.conf',
      text: `[[outputs.influxdb_v2]]\n  urls = ["${a.base}"]\n  bucket = "metrics"\n  organization = "varve"\n  token = ""\n`,
    },
    {
      key: 'otlp',
      title: 'OpenTelemetry',
      about: 'The collector sends metrics by OTLP over HTTP. Its exporter adds v1/metrics to the address by itself.',
      file: 'otel-collector.yaml',
      text: `exporters:\n  otlphttp/varve:\n    endpoint: ${a.base}/api/v1/otlp\nservice:\n  pipelines:\n    metrics:\n      receivers: [otlp]\n      exporters: [otlphttp/varve]\n`,
    },
    {
      key: 'scrape',
      title: 'Scrape',
      about: 'Varve can scrape by itself. This goes into its own configuration, with the targets that you have.',
      file: 'varve.yml',
      text: 'inputs:\n  - name: node\n    scrape:\n      scrape_configs:\n        - job_name: node\n          static_configs:\n            - targets: [localhost:9100]\n',
    },
    {
      key: 'curl',
      title: 'curl',
      about: 'One sample by hand, in the text format of Prometheus, to see that the way in is open.',
      file: '',
      text: `echo 'varve_hello{from="curl"} 1' | curl --data-binary @- ${a.base}/api/v1/import/prometheus\n`,
    },
  ];
}
