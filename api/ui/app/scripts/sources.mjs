// Writes ../dist/SOURCES: the hash of what dist was built from. The Go test of package ui computes
// the same and fails if the sources are newer than dist.
//
// For each file, sorted by the bytes of its path (with slashes): lower-hex SHA-256 of its content, two
// spaces, path, "\n". SOURCES is the lower-hex SHA-256 of that text and "\n". Tests are left out.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const app = join(dirname(fileURLToPath(import.meta.url)), '..');
const single = ['package.json', 'package-lock.json', 'vite.config.ts', 'tsconfig.json', 'index.html'];
const folders = ['src', 'public'];

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

function walk(folder, found) {
  for (const name of readdirSync(join(app, folder))) {
    const path = `${folder}/${name}`;
    if (statSync(join(app, path)).isDirectory()) walk(path, found);
    else if (!/\.test\.tsx?$/.test(name)) found.push(path);
  }
}

const paths = [...single];
for (const folder of folders) walk(folder, paths);
paths.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
const list = paths.map((path) => `${sha256(readFileSync(join(app, path)))}  ${path}\n`).join('');
writeFileSync(join(app, '../dist/SOURCES'), `${sha256(list)}\n`);
