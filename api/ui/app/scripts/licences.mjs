// Writes dist/LICENSES.txt: the notices of the packages whose code is in the built files.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const app = join(dirname(fileURLToPath(import.meta.url)), '..');
const folders = execFileSync('npm', ['ls', '--omit=dev', '--all', '--parseable'], { cwd: app, encoding: 'utf8' })
  .split('\n').filter((path) => path.includes(`${sep}node_modules${sep}`));
const notices = new Map();
for (const folder of folders) {
  const about = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const file = readdirSync(folder).filter((name) => /^(licen[cs]e|copying|notice)/i.test(name)).sort()[0];
  const text = file && existsSync(join(folder, file)) ? readFileSync(join(folder, file), 'utf8').trim() : `Licence: ${about.license}`;
  notices.set(`${about.name} ${about.version}`, text);
}
const names = [...notices.keys()].sort();
if (names.length === 0) throw new Error('no package was found: run npm ci first');
writeFileSync(join(app, '..', 'dist', 'LICENSES.txt'), names.map((name) => `${name}\n\n${notices.get(name)}\n`).join(`\n${'-'.repeat(78)}\n\n`));
console.log(`licences of ${names.length} packages`);
