// Run, and while it runs, how long already and a way to stop.
import { useEffect, useState } from 'preact/hooks';
import { Button } from '../../core/ui';
import { duration } from '../../core/format';
import { Icon, paths } from '../../shell/icons';

export function RunButtons(props: { since: number; cancelled: number | undefined; changed: boolean; onRun: () => void; onCancel: () => void }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (props.since === 0) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 100);
    return () => clearInterval(timer);
  }, [props.since]);
  const running = props.since !== 0;
  const elapsed = Math.max(0, now - props.since) / 1000;
  return (
    <div class="run">
      <Button kind="primary" testid="query-run" onClick={props.onRun} title="Enter in the editor does the same"><Icon d={paths.play} />Run</Button>
      {running && (
        <>
          <Button testid="query-cancel" onClick={props.onCancel}><Icon d={paths.stop} />Cancel</Button>
          <span class="elapsed tabular" data-testid="query-elapsed">{elapsed.toFixed(1)} s</span>
        </>
      )}
      <span role="status" class="dim run-said">
        {!running && props.cancelled !== undefined ? `Cancelled after ${duration(props.cancelled)}. What is shown is the answer before.` : ''}
        {!running && props.cancelled === undefined && props.changed ? 'Changed, not run yet' : ''}
      </span>
    </div>
  );
}
