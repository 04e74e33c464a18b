// Actions: whether they may be done, what became of the last one, and the dialog of those that need words.
import type { ComponentChildren } from 'preact';
import { useCallback, useEffect, useId, useRef, useState } from 'preact/hooks';
import { ApiError, isAbort } from '../../core/api';
import { usePage } from '../../core/page';
import { Button, classes, errorText } from '../../core/ui';

/** missing tells that an endpoint is not there: an older server, or one without that part. */
export function missing(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404;
}

/** useAdminOff says why actions are off, empty if they are on. Without facts of the server it lets the server decide. */
export function useAdminOff(): string {
  const { facts } = usePage();
  if (!facts || facts.admin) return '';
  return facts.caller === ''
    ? 'Actions are off: start the server with --web.enable-admin-api.'
    : 'Actions are off: start the server with --web.enable-admin-api, and log in as somebody who may do admin.';
}

/** AdminNote says once a view why its buttons are off. */
export function AdminNote() {
  const off = useAdminOff();
  return off === '' ? null : <p class="note-box" data-testid="admin-off">{off}</p>;
}

/** Outcome is what became of an action. */
export interface Outcome {
  good: boolean;
  text: string;
}

export interface Actions {
  outcome: Outcome | undefined;
  /** Does something and keeps what became of it: done says what a success is worth telling. It never throws. */
  run: <T>(what: string, act: () => Promise<T>, done: string | ((result: T) => string | Outcome)) => Promise<boolean>;
  dismiss: () => void;
}

/** useActions keeps the outcome of the last action, until the next or until it is dismissed. */
export function useActions(): Actions {
  const [outcome, setOutcome] = useState<Outcome | undefined>();
  const run = useCallback(async <T,>(what: string, act: () => Promise<T>, done: string | ((result: T) => string | Outcome)) => {
    setOutcome(undefined);
    try {
      const result = await act();
      const told = typeof done === 'string' ? done : done(result);
      setOutcome(typeof told === 'string' ? { good: true, text: told } : told);
      return true;
    } catch (error) {
      if (!isAbort(error)) setOutcome({ good: false, text: `${what}: ${errorText(error)}` });
      return false;
    }
  }, []);
  const dismiss = useCallback(() => setOutcome(undefined), []);
  return { outcome, run, dismiss };
}

/** OutcomeLine shows the outcome and reads it out. It is there, and empty, without one, so that screen readers watch it. */
export function OutcomeLine(props: { actions: Actions; testid?: string }) {
  const { outcome, dismiss } = props.actions;
  return (
    <div aria-live="polite" role="status" class="outcome-place">
      {outcome && (
        <div class={classes('outcome', outcome.good ? 'outcome-good' : 'outcome-bad')} data-testid={props.testid}>
          <span class="outcome-text">{outcome.text}</span>
          <Button small kind="quiet" label="Dismiss this message" onClick={dismiss}>✕</Button>
        </div>
      )}
    </div>
  );
}

export interface DialogProps {
  title: string;
  children: ComponentChildren;
  /** The button that does it. */
  confirm: string;
  danger?: boolean;
  disabled?: boolean;
  /** The dialog stays, busy, until this is over. */
  onConfirm: () => Promise<unknown>;
  onClose: () => void;
  testid?: string;
}

/** Dialog is modal: the browser keeps the focus inside, Escape closes it, and the focus goes back to where it was. */
export function Dialog(props: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const d = dialog.current;
    const before = document.activeElement as HTMLElement | null;
    if (d && !d.open) d.showModal();
    return () => before?.focus();
  }, []);
  return (
    <dialog
      ref={dialog} class="dialog" aria-labelledby={id} data-testid={props.testid}
      onClose={props.onClose}
      onClick={(e) => e.target === dialog.current && dialog.current?.close()}
    >
      <form
        method="dialog" class="dialog-inside"
        onSubmit={(e) => e.preventDefault()}
      >
        <h2 id={id}>{props.title}</h2>
        <div class="dialog-body">{props.children}</div>
        <div class="dialog-foot">
          <Button onClick={() => dialog.current?.close()}>Cancel</Button>
          <Button
            kind={props.danger ? 'danger' : 'primary'} disabled={props.disabled} testid={props.testid && `${props.testid}-confirm`}
            onClick={async () => {
              await props.onConfirm();
              dialog.current?.close();
            }}
          >
            {props.confirm}
          </Button>
        </div>
      </form>
    </dialog>
  );
}
