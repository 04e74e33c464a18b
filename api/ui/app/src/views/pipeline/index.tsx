// Pipeline: what comes in, what goes out, and what the server does in between.
import './style.css';
import { AdminNote } from './action';
import { Compactor } from './compactor';
import { Inputs } from './inputs';
import { Outputs } from './outputs';
import { Queries } from './queries';
import { Snapshots } from './snapshots';

export default function Pipeline() {
  return (
    <>
      <h1 class="hidden-text">Pipeline</h1>
      <AdminNote />
      <Inputs />
      <Outputs />
      <div class="columns columns-wide">
        <Compactor />
        <Snapshots />
      </div>
      <Queries />
    </>
  );
}
