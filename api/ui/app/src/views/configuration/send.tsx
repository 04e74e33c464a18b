// How others send here and read from here, ready to be copied.
import { useState } from 'preact/hooks';
import { usePage } from '../../core/page';
import { CopyText, TabPanel, Tabs } from '../../core/ui';
import { addressesOf, senders } from './senders';

/** Senders offers a snippet for each usual system. */
export function Senders() {
  const { facts } = usePage();
  const [key, setKey] = useState('prometheus');
  const all = senders(addressesOf(facts, document.baseURI));
  const shown = all.find((s) => s.key === key) ?? all[0]!;
  return (
    <div data-testid="senders">
      <div class="tabs-scroll">
        <Tabs id="senders" label="Systems that send or read" active={shown.key} onChange={setKey} items={all.map((s) => ({ key: s.key, title: s.title, testid: `sender-${s.key}` }))} />
      </div>
      <TabPanel id="senders" active={shown.key}>
        <div class="sender">
          <p>{shown.about}{shown.file !== '' && <> Into <code>{shown.file}</code>:</>}</p>
          <CopyText key={shown.key} block text={shown.text.trimEnd()} label={`the snippet for ${shown.title}`} />
        </div>
      </TabPanel>
    </div>
  );
}
