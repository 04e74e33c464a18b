// Configuration: what the server runs with, how others reach it, and where to read more.
import '../pipeline/style.css';
import './style.css';
import { Card } from '../../core/ui';
import { Docs } from './docs';
import { BuildFacts, Flags, RuntimeFacts } from './facts';
import { Senders } from './send';
import { ConfigYAML } from './yamlview';

export default function Configuration() {
  return (
    <>
      <h1 class="hidden-text">Configuration</h1>
      <div class="columns-config">
        <ConfigYAML />
        <div class="stack-cards">
          <Card title="Send here, read from here"><Senders /></Card>
          <RuntimeFacts />
          <BuildFacts />
        </div>
      </div>
      <div class="columns columns-wide">
        <Flags />
        <Docs />
      </div>
    </>
  );
}
