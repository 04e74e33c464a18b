// Prints what each built file weighs, plain and with gzip -9, and the sum.
import { gzipSync } from 'node:zlib';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const dist = join(dirname(fileURLToPath(import.meta.url)), '../../dist');
const files = readdirSync(dist, { recursive: true }).filter((f) => statSync(join(dist, f)).isFile()).sort();
let plain = 0;
let packed = 0;
for (const file of files) {
  const bytes = readFileSync(join(dist, file));
  const gz = gzipSync(bytes, { level: 9 }).length;
  plain += bytes.length;
  packed += gz;
  console.log(`${String(bytes.length).padStart(9)} ${String(gz).padStart(8)}  ${file}`);
}
console.log(`${String(plain).padStart(9)} ${String(packed).padStart(8)}  total`);
