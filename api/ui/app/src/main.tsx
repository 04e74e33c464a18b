import { render } from 'preact';
import './style.css';
import { App } from './shell/app';

render(<App />, document.getElementById('app')!);
