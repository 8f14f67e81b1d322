import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { type Kysely, sql } from 'kysely'
import { BrokenInvariant } from '#base/assert.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { beginRun, endRun, readMeta } from './meta.ts'
import { migrations } from './migrations/list.ts'
import type { Migration } from './migrations/migration.ts'
import { migrate } from './migrations/run.ts'
import { connectStore, openStore } from './open.ts'
import type { Store, Transaction } from './store.ts'

/** What every engine behind the store must do. `fresh` makes an empty database that the test's end removes. */
export function storeContract(engine: string, fresh: (t: TestContext) => Promise<string>): void {
  const log = createLog('test', 'silent')
  const options = (url: string) => ({ url, clock: systemClock, log })
  const open = async (t: TestContext, url: string) => {
    const store = await openStore(options(url))
    t.after(() => store.close())
    return store
  }
  const says = (title: string, run: (t: TestContext) => Promise<void>): void =>
    void test(`${engine}: ${title}`, run)

  says('what write did is there for everyone, and after opening again', async (t) => {
    const url = await fresh(t)
    const store = await openStore(options(url))
    await store.write((tx) => note(tx, 'a'))
    assert.deepEqual(await notes(store), ['a'])
    assert.deepEqual(await store.read((db) => db.selectFrom('audit').select('id').execute()), [
      { id: 'a' },
    ])
    await store.close()
    await store.close()
    assert.deepEqual(await notes(await open(t, url)), ['a'])
  })

  says('a write that throws leaves nothing, and its error comes out', async (t) => {
    const store = await open(t, await fresh(t))
    let told = 0
    const failing = store.write(async (tx) => {
      await note(tx, 'a')
      store.afterCommit(tx, () => told++)
      throw new Error('changed my mind')
    })
    await assert.rejects(failing, /changed my mind/)
    await assert.rejects(store.write((tx) => sql`no such statement`.execute(tx)))
    assert.deepEqual(await notes(store), [])
    assert.equal(told, 0)
    await store.write(async (tx) => {
      await note(tx, 'b')
      store.afterCommit(tx, () => told++)
      assert.equal(told, 0)
    })
    assert.equal(told, 1)
    assert.deepEqual(await notes(store), ['b'])
  })

  says('one read sees one moment, and single queries see only what is committed', async (t) => {
    const store = await open(t, await fresh(t))
    const gate = Promise.withResolvers<void>()
    const inside = Promise.withResolvers<void>()
    const writing = store.write(async (tx) => {
      await note(tx, 'a')
      inside.resolve()
      await gate.promise
    })
    await inside.promise
    assert.deepEqual(await notes(store), [])
    await store.read(async (db) => {
      const count = async () => (await db.selectFrom('audit').select('id').execute()).length
      assert.equal(await count(), 0)
      gate.resolve()
      await writing
      assert.equal(await count(), 0)
    })
    assert.deepEqual(await notes(store), ['a'])
  })

  says('reading connections cannot write', async (t) => {
    const store = await open(t, await fresh(t))
    const change = (db: Store['db']) =>
      db.updateTable('meta').set({ incarnation: 'x' }).where('id', '=', 1).execute()
    await assert.rejects(change(store.db), /read.?only/i)
    await assert.rejects(store.read(change), /read.?only/i)
  })

  says('a write inside a write is a mistake that is noticed', async (t) => {
    const store = await open(t, await fresh(t))
    const nested = store.write(() => store.write(async () => {}))
    await assert.rejects(nested, BrokenInvariant)
    // A hook runs outside, so it may write.
    const { promise, resolve } = Promise.withResolvers<void>()
    await store.write(async (tx) => {
      store.afterCommit(tx, () => void store.write((inner) => note(inner, 'hook')).then(resolve))
    })
    await promise
    assert.deepEqual(await notes(store), ['hook'])
  })

  says('a read inside a read is a mistake that is noticed', async (t) => {
    const store = await open(t, await fresh(t))
    let later: Promise<unknown> = Promise.resolve()
    await store.read(async (db) => {
      await assert.rejects(notes(store), BrokenInvariant)
      await assert.rejects(
        store.read(async () => {}),
        BrokenInvariant,
      )
      await readMeta(db)
      later = new Promise((resolve) => setImmediate(resolve)).then(() => notes(store))
    })
    // What outlives it holds nothing.
    await later
  })

  says('writers of two stores on one database lose no update', async (t) => {
    const url = await fresh(t)
    const stores = [await open(t, url), await open(t, url)]
    const raise = (store: Store) =>
      store.write(async (tx) => {
        const { incarnation_number } = await readMeta(tx)
        await tx
          .updateTable('meta')
          .set({ incarnation_number: incarnation_number + 1 })
          .where('id', '=', 1)
          .execute()
      })
    await Promise.all(Array.from({ length: 12 }, () => stores.map(raise)).flat())
    const [store] = stores
    assert.ok(store !== undefined)
    assert.equal((await readMeta(store.db)).incarnation_number, 25)
  })

  says('of writers that each look before they act, exactly one acts', async (t) => {
    const url = await fresh(t)
    const stores = [await open(t, url), await open(t, url)]
    const claim = (store: Store, name: string) =>
      store.write(async (tx) => {
        const taken = await tx.selectFrom('audit').select('id').execute()
        if (taken.length > 0) return false
        await note(tx, name)
        return true
      })
    const claims = stores.flatMap((store, index) =>
      Array.from({ length: 6 }, (_, turn) => claim(store, `${index}-${turn}`)),
    )
    const won = (await Promise.all(claims)).filter((one) => one)
    assert.equal(won.length, 1)
  })

  says('numbers, text and null come back as they were', async (t) => {
    const store = await open(t, await fresh(t))
    const row = {
      id: 'á𝄞"\'\n%',
      at: Number.MAX_SAFE_INTEGER,
      project: null,
      actor: '',
      source: null,
      action: 'x'.repeat(100_000),
      target: null,
      result: -2_147_483_648,
      detail: '{"a":[1,2]}',
    }
    await store.write(async (tx) => {
      await tx.insertInto('audit').values(row).execute()
    })
    assert.deepEqual(await store.db.selectFrom('audit').selectAll().execute(), [row])
    const totals = await store.db
      .selectFrom('audit')
      .select((eb) => [eb.fn.countAll<number>().as('count'), eb.fn.sum<number>('at').as('sum')])
      .executeTakeFirstOrThrow()
    assert.deepEqual(totals, { count: 1, sum: Number.MAX_SAFE_INTEGER })
    const changed = await store.write((tx) =>
      tx.updateTable('meta').set({ boot_id: 'b' }).where('id', '=', 1).executeTakeFirst(),
    )
    assert.equal(changed.numUpdatedRows, 1n)
  })

  says('the audit log and the history of ownership only grow', async (t) => {
    const store = await open(t, await fresh(t))
    await store.write((tx) => note(tx, 'a'))
    const attempts = [
      store.write((tx) => tx.updateTable('audit').set({ actor: 'x' }).execute()),
      store.write((tx) => tx.deleteFrom('audit').execute()),
    ]
    for (const attempt of attempts) await assert.rejects(attempt, /only ever grows/)
    assert.deepEqual(await notes(store), ['a'])
  })

  says('a new database has one incarnation, which opening again keeps', async (t) => {
    const url = await fresh(t)
    // Two control planes that start together on nothing.
    const [one, other] = await Promise.all([open(t, url), open(t, url)])
    const first = await readMeta(one.db)
    assert.deepEqual(await readMeta(other.db), first)
    assert.equal(first.incarnation_number, 1)
    assert.deepEqual(await readMeta((await open(t, url)).db), first)
    const names = await one.db
      .selectFrom('applied_migrations')
      .select('name')
      .orderBy('name')
      .execute()
    assert.deepEqual(
      names.map(({ name }) => name),
      migrations.map(({ name }) => name),
    )
  })

  says(
    'a start keeps the history, and tells whether the stop before it was in order',
    async (t) => {
      const store = await open(t, await fresh(t))
      const { history_mark } = await readMeta(store.db)
      assert.deepEqual(await beginRun(store, 'boot-1'), { doubt: null, unclean: false })
      assert.deepEqual(await beginRun(store, 'boot-2'), { doubt: null, unclean: !store.shared })
      await endRun(store)
      assert.deepEqual(await beginRun(store, 'boot-2'), { doubt: null, unclean: false })
      assert.equal((await readMeta(store.db)).history_mark, history_mark)
    },
  )

  says('a database of a newer release is refused untouched', async (t) => {
    const url = await fresh(t)
    await (await openStore(options(url))).close()
    const store = connectStore(options(url))
    t.after(() => store.close())
    const newer = [...migrations, plus('9999-later', 'later')]
    await migrate(store, systemClock, newer)
    await assert.rejects(migrate(store, systemClock), { code: 'STORE_NEWER' })
    await assert.rejects(openStore(options(url)), { code: 'STORE_NEWER' })
    await migrate(store, systemClock, newer)
  })

  says('a schema change that was edited after it had run is refused', async (t) => {
    const store = connectStore(options(await fresh(t)))
    t.after(() => store.close())
    await migrate(store, systemClock, [...migrations, plus('9999-x', 'first')])
    const edited = [...migrations, plus('9999-x', 'second')]
    await assert.rejects(migrate(store, systemClock, edited), { code: 'MIGRATION_CHANGED' })
    const inserted = [...migrations, plus('9998-x', 'before'), plus('9999-x', 'first')]
    await assert.rejects(migrate(store, systemClock, inserted), { code: 'MIGRATION_CHANGED' })
  })

  says('tables that were changed by hand are refused', async (t) => {
    const url = await fresh(t)
    const store = await open(t, url)
    await store.write((tx) => sql`alter table audit add column surprise text`.execute(tx))
    await assert.rejects(openStore(options(url)), { code: 'SCHEMA_DRIFT' })
  })

  says('a schema change that fails half way leaves nothing of itself', async (t) => {
    const url = await fresh(t)
    const store = connectStore(options(url))
    t.after(() => store.close())
    const broken: Migration = {
      name: '9999-broken',
      async up(db) {
        await plus('', 'half').up(db, store.engine)
        if (await rowsExpected(db)) throw new Error('half way')
      },
    }
    await assert.rejects(migrate(store, systemClock, [...migrations, broken]), /half way/)
    await open(t, url)
  })
}

async function note(tx: Transaction, id: string): Promise<void> {
  await tx
    .insertInto('audit')
    .values({
      id,
      at: 0,
      project: null,
      actor: 'test',
      source: null,
      action: 'note',
      target: null,
      result: 0,
      detail: '{}',
    })
    .execute()
}

const notes = async (store: Store): Promise<string[]> =>
  (await store.db.selectFrom('audit').select('id').orderBy('id').execute()).map(({ id }) => id)

/** A migration that adds one table. */
const plus = (name: string, table: string): Migration => ({
  name,
  async up(db) {
    await db.schema.createTable(table).addColumn('id', 'text').execute()
  },
})

/** True on a real database; the recorder that fingerprints migrations answers nothing. */
async function rowsExpected(db: Kysely<unknown>): Promise<boolean> {
  const { rows } = await sql`select 1 as one`.execute(db)
  return rows.length > 0
}
