import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { migrations } from './list.ts'
import { planOf, statementsOf } from './run.ts'

const manifest = JSON.parse(readFileSync(new URL('./manifest.json', import.meta.url), 'utf8')) as {
  name: string
  sqlite: string
  postgres: string
}[]

test('schema changes are numbered without gaps', () => {
  for (const [index, { name }] of migrations.entries()) {
    assert.match(name, /^[0-9]{4}-[a-z][a-z-]*$/)
    assert.equal(Number(name.slice(0, 4)), index + 1)
  }
})

test('every schema change runs what the manifest says: a released one is never edited', async () => {
  const advice = 'if it was not released yet, or is new: node scripts/migration-manifest.ts'
  const names = migrations.map(({ name }) => name)
  assert.deepEqual(
    manifest.map(({ name }) => name),
    names,
    advice,
  )
  for (const engine of ['sqlite', 'postgres'] as const) {
    const plan = await planOf(migrations, engine)
    for (const [index, { migration, statements_sha256 }] of plan.entries()) {
      assert.equal(statements_sha256, manifest[index]?.[engine], `${migration.name}: ${advice}`)
    }
  }
})

test('a schema change runs the same statements every time', async () => {
  for (const migration of migrations) {
    const once = await statementsOf(migration, 'sqlite')
    assert.ok(once.length > 0)
    assert.deepEqual(await statementsOf(migration, 'sqlite'), once)
  }
})
