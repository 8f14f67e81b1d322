/**
 * Writes the manifest of schema changes: what each of them runs, as a checksum per engine. A test compares it with the code, so
 * that a released change is not edited by accident. Run it after adding a migration:
 *
 *     node scripts/migration-manifest.ts
 */
import { writeFileSync } from 'node:fs'
import { migrations } from '../src/control/store/migrations/list.ts'
import { planOf } from '../src/control/store/migrations/run.ts'

const sqlite = await planOf(migrations, 'sqlite')
const postgres = await planOf(migrations, 'postgres')
const manifest = migrations.map(({ name }, index) => ({
  name,
  sqlite: sqlite[index]?.statements_sha256,
  postgres: postgres[index]?.statements_sha256,
}))
writeFileSync(
  new URL('../src/control/store/migrations/manifest.json', import.meta.url),
  `${JSON.stringify(manifest, null, 2)}\n`,
)
