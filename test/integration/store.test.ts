import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, type TestContext, test } from 'node:test'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { createWitness } from '#control/sites/witness.ts'
import { backupState, restoreState } from '#control/store/backup.ts'
import { beginRun, readMeta } from '#control/store/meta.ts'
import { connectStore, openStore } from '#control/store/open.ts'
import type { Store } from '#control/store/store.ts'
import { storeContract } from '#control/store/store.contract.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { withFilesUpTo } from '../support/file-limit.ts'
import { smallDisk } from '../support/small-disk.ts'

const log = createLog('test', 'silent')

function scratch(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-store-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

const options = (url: string) => ({ url, clock: systemClock, log })

async function open(t: TestContext, url: string): Promise<Store> {
  const store = await openStore(options(url))
  t.after(() => store.close())
  return store
}

const sqlite = async (t: TestContext) => `sqlite:${scratch(t)}/state.db`
storeContract('sqlite', sqlite)

const started = await startPostgres()
const postgres: Postgres | null = 'missing' in started ? null : started
let databases = 0
const freshPostgres = async () => {
  assert.ok(postgres !== null)
  return await postgres.database(`holdfast_${++databases}`)
}
if (postgres === null) {
  test('the store on PostgreSQL', { skip: 'missing' in started ? started.missing : '' }, () => {})
} else {
  after(() => postgres.stop())
  storeContract('postgres', freshPostgres)
}
const needsPostgres = {
  timeout: 60_000,
  ...('missing' in started ? { skip: started.missing } : {}),
}

const fill = async (store: Store, count: number, from = 0) => {
  for (let index = from; index < from + count; index++) {
    await store.write((tx) => insert(tx, index))
  }
}

async function insert(tx: Parameters<Parameters<Store['write']>[0]>[0], index: number) {
  const id = String(index).padStart(6, '0')
  const common = { project: null, source: null, target: null, result: index }
  // Two rows that belong together: a torn snapshot would show one without the other.
  for (const side of ['a', 'b']) {
    await tx
      .insertInto('audit')
      .values({
        id: `${id}${side}`,
        at: index,
        actor: 't',
        action: 'x',
        detail: '"ü\\n"',
        ...common,
      })
      .execute()
  }
}

test('a backup taken under load is one moment, and restores under a new incarnation whose history is in doubt', async (t) => {
  const dir = scratch(t)
  const store = await open(t, `sqlite:${dir}/state.db`)
  await beginRun(store, 'boot-1')
  await fill(store, 700)
  const load = fill(store, 200, 700)
  const summary = await backupState(store, `${dir}/backup`, systemClock)
  await load
  assert.equal(statSync(`${dir}/backup`).mode & 0o777, 0o600)
  assert.equal(summary.bytes, statSync(`${dir}/backup`).size)
  const restored = await restoreState(options(`sqlite:${dir}/other.db`), `${dir}/backup`)
  assert.equal(restored.rows, summary.rows)
  const copy = await open(t, `sqlite:${dir}/other.db`)
  const ids = (await copy.db.selectFrom('audit').select('id').orderBy('id').execute()).map(
    ({ id }) => id,
  )
  assert.ok(ids.length >= 1400 && ids.length % 2 === 0, `${ids.length} rows`)
  const meta = await readMeta(copy.db)
  const before = await readMeta(store.db)
  assert.notEqual(meta.incarnation, before.incarnation)
  assert.equal(meta.incarnation, restored.incarnation)
  assert.equal(meta.incarnation_number, 2)
  assert.equal(meta.clean_shutdown, 0)
  assert.notEqual(meta.history_mark, before.history_mark)
  assert.deepEqual(await beginRun(copy, 'boot-1'), { doubt: 'restored', unclean: false })
})

test(
  'a state moves from SQLite to PostgreSQL and back without a difference',
  needsPostgres,
  async (t) => {
    const dir = scratch(t)
    const store = await open(t, `sqlite:${dir}/state.db`)
    await fill(store, 20)
    await backupState(store, `${dir}/one`, systemClock)
    const url = await freshPostgres()
    await restoreState(options(url), `${dir}/one`)
    const middle = await open(t, url)
    await backupState(middle, `${dir}/two`, systemClock)
    await restoreState(options(`sqlite:${dir}/end.db`), `${dir}/two`)
    const end = await open(t, `sqlite:${dir}/end.db`)
    const all = (of: Store) => of.db.selectFrom('audit').selectAll().orderBy('id').execute()
    assert.deepEqual(await all(middle), await all(store))
    assert.deepEqual(await all(end), await all(store))
    assert.equal((await readMeta(end.db)).incarnation_number, 3)
  },
)

test('a backup that is cut off, changed or foreign is refused, and the target stays empty', async (t) => {
  const dir = scratch(t)
  const store = await open(t, `sqlite:${dir}/state.db`)
  await fill(store, 3)
  await backupState(store, `${dir}/good`, systemClock)
  const good = readFileSync(`${dir}/good`, 'utf8')
  const bad = {
    empty: '',
    'cut off': good.slice(0, good.lastIndexOf('{"end"')),
    changed: good.replace('000001a', '000009a'),
    'text behind': `${good}{}\n`,
    'not ours': '{"format":"other"}\n',
    'not JSON': 'PK\u0003\u0004\n',
  }
  for (const [name, content] of Object.entries(bad)) {
    writeFileSync(`${dir}/bad`, content)
    await assert.rejects(
      restoreState(options(`sqlite:${dir}/target.db`), `${dir}/bad`),
      { code: 'BACKUP_DAMAGED' },
      name,
    )
  }
  await restoreState(options(`sqlite:${dir}/target.db`), `${dir}/good`)
  const again = restoreState(options(`sqlite:${dir}/target.db`), `${dir}/good`)
  await assert.rejects(again, { code: 'RESTORE_TARGET_USED' })
})

test('a second control plane on one SQLite database is refused until the first is gone', async (t) => {
  const url = await sqlite(t)
  const store = await open(t, url)
  await store.claim()
  await store.claim()
  const program = `
    const { openStore } = await import('#control/store/open.ts')
    const { systemClock } = await import('#base/system/clock.ts')
    const store = await openStore({ url: ${JSON.stringify(url)}, clock: systemClock })
    await store.claim().then(() => console.log('claimed'), (error) => console.log(error.code))
    await store.close()`
  const other = () =>
    new Promise<string>((resolve, reject) => {
      const root = join(import.meta.dirname, '../..')
      execFile(
        process.execPath,
        ['--input-type=module', '-e', program],
        { cwd: root },
        (error, out, complaints) =>
          error === null ? resolve(out.trim()) : reject(new Error(complaints, { cause: error })),
      )
    })
  assert.equal(await other(), 'STORE_IN_USE')
  await store.close()
  assert.equal(await other(), 'claimed')
})

test('the first disk error ends all writing, and what was acknowledged before is there afterwards', async (t) => {
  const url = await sqlite(t)
  await (await openStore(options(url))).close()
  const program = `
    const { openStore } = await import('#control/store/open.ts')
    const { systemClock } = await import('#base/system/clock.ts')
    const store = await openStore({ url: ${JSON.stringify(url)}, clock: systemClock })
    const common = { project: null, source: null, target: null, result: 0, actor: 't', at: 0, action: 'x' }
    const write = (id) => store.write((tx) =>
      tx.insertInto('audit').values({ id, detail: 'x'.repeat(10000), ...common }).execute())
    let acknowledged = 0
    const codes = []
    while (codes.length < 3) {
      try {
        await write(String(acknowledged))
        acknowledged++
      } catch (error) {
        codes.push(error.code)
      }
    }
    console.log(JSON.stringify({ acknowledged, codes }))`
  // A limit on the size of files stands for a disk that fails: writing beyond it is an I/O error.
  const limited = `trap '' XFSZ; ulimit -f 2000; exec "$0" --input-type=module -e "$1"`
  const said = await new Promise<string>((resolve, reject) => {
    execFile(
      'sh',
      ['-c', limited, process.execPath, program],
      { cwd: join(import.meta.dirname, '../..') },
      (error, out, complaints) =>
        error === null ? resolve(out) : reject(new Error(complaints, { cause: error })),
    )
  })
  const { acknowledged, codes } = JSON.parse(said) as { acknowledged: number; codes: string[] }
  assert.ok(acknowledged > 10)
  assert.deepEqual(codes, ['STORE_FAILED', 'STORE_FAILED', 'STORE_FAILED'])
  const store = await open(t, url)
  const { n } = await store.db
    .selectFrom('audit')
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .executeTakeFirstOrThrow()
  assert.equal(n, acknowledged)
})

const small = await smallDisk(8 * 1024)
if (typeof small !== 'string') after(() => small.end())

test('a full disk refuses changes and nothing else, and is over when there is space', {
  skip: typeof small === 'string' ? small : false,
}, async (t) => {
  assert.ok(typeof small !== 'string')
  const filler = join(small.directory, 'filler')
  const url = `sqlite:${small.directory}/state.db`
  // Room for the log of one larger write.
  writeFileSync(filler, Buffer.alloc(512 * 1024, 1))
  const store = await openStore(options(url))
  t.after(() => store.close())
  let failures = 0
  store.onFailure(() => failures++)
  const common = { project: null, source: null, target: null, result: 0, actor: 't', at: 0 }
  const row = (id: string) => ({ ...common, id, action: 'x', detail: 'x'.repeat(4000) })
  const write = (id: string) =>
    store.write((tx) => tx.insertInto('audit').values(row(id)).execute())
  const count = async () => (await store.db.selectFrom('audit').select('id').execute()).length
  let acknowledged = 0
  const full = async () => {
    for (;;) await write(String(acknowledged)).then(() => acknowledged++)
  }
  await assert.rejects(full(), { code: 'STORE_FULL' })
  await assert.rejects(write('again'), { code: 'STORE_FULL' })
  assert.ok(acknowledged > 10)
  assert.equal(await count(), acknowledged)
  rmSync(filler)
  await write('later')
  assert.equal(await count(), acknowledged + 1)
  assert.equal(failures, 0)
})

test('without room for the index of the log an opening is refused and leaves nothing open; a write that meets a limit on files ends all writing', async (t) => {
  const url = await sqlite(t)
  await (await openStore(options(url))).close()
  const descriptors = () => readdirSync('/proc/self/fd').length
  const store = await withFilesUpTo(16 * 1024, async () => {
    const before = descriptors()
    for (let attempt = 0; attempt < 3; attempt++) {
      await assert.rejects(openStore(options(url)), { code: 'STORE_FULL' })
    }
    assert.equal(descriptors(), before)
    const later = connectStore(options(url))
    t.after(() => later.close())
    await assert.rejects(beginRun(later, 'one'), { code: 'STORE_FULL' })
    return later
  })
  let failures = 0
  store.onFailure(() => failures++)
  await beginRun(store, 'two')
  await withFilesUpTo(100, async () => {
    await assert.rejects(beginRun(store, 'three'), { code: 'STORE_FAILED' })
  })
  assert.equal(failures, 1)
})

test('a database that must exist and does not is refused and not made', async (t) => {
  const dir = scratch(t)
  const absent = { ...options(`sqlite:${dir}/state.db`), create: false }
  await assert.rejects(openStore(absent), { code: 'STORE_MISSING' })
  assert.deepEqual(readdirSync(dir), [])
})

test('an address that is no database is refused', async () => {
  for (const url of ['sqlite:', 'mysql://x/y', 'state.db', '']) {
    await assert.rejects(openStore(options(url)), { code: 'STORE_URL' })
  }
})

test(
  'a PostgreSQL that is away is a fault worth repeating, and writing works again when it is back',
  needsPostgres,
  async (t) => {
    assert.ok(postgres !== null)
    const url = await freshPostgres()
    const store = await open(t, url)
    await fill(store, 1)
    await postgres.kill()
    await assert.rejects(fill(store, 1, 1), { code: 'STORE_UNREACHABLE' })
    await assert.rejects(
      store.read((db) => readMeta(db)),
      { code: 'STORE_UNREACHABLE' },
    )
    await postgres.start()
    await fill(store, 1, 2)
    const { n } = await store.db
      .selectFrom('audit')
      .select((eb) => eb.fn.countAll<number>().as('n'))
      .executeTakeFirstOrThrow()
    assert.equal(n, 4)
  },
)

test('a PostgreSQL that may forget commits is refused', needsPostgres, async (t) => {
  assert.ok(postgres !== null)
  const url = await freshPostgres()
  t.after(() => postgres.set('fsync', 'on'))
  await postgres.set('fsync', 'off')
  const refusal = async () =>
    await openStore(options(url)).then(
      async (store) => {
        await store.close()
        return 'opened'
      },
      (error: Error & { code?: string }) => error.code,
    )
  // The reload reaches new sessions a moment after it was asked for.
  while ((await refusal()) === 'opened') await new Promise((resolve) => setTimeout(resolve, 10))
  assert.equal(await refusal(), 'STORE_NOT_DURABLE')
})

test(
  'a standby that commits do not wait for is refused; a promoted one brings every ownership record in doubt',
  needsPostgres,
  async (t) => {
    const cluster = await startPostgres()
    assert.ok(!('missing' in cluster))
    t.after(() => cluster.stop())
    const url = await cluster.database('holdfast')
    const standby = await cluster.standby()
    await assert.rejects(openStore(options(url)), { code: 'STORE_NOT_DURABLE' })
    await cluster.set('synchronous_standby_names', '*')
    const store = await openOnce(t, url)
    const bootId = 'boot-1'
    const witness = createWitness({
      store,
      clock: systemClock,
      log,
      bootId,
      leaseMs: 50,
      driftMs: 5,
    })
    assert.equal((await beginRun(store, bootId)).doubt, null)
    await store.write((tx) => witness.register(tx, 's', 'az1', 'az2'))
    const before = await readMeta(store.db)

    await cluster.kill()
    await standby.takeOver()
    await cluster.set('synchronous_standby_names', '')
    // Connections broke with the old server; each of the pool's is noticed as it is used.
    let answer = await ask()
    while (answer === null) {
      await new Promise((resolve) => setTimeout(resolve, 20))
      answer = await ask()
    }
    assert.equal(answer, 'waits')
    const after = await readMeta(store.db)
    assert.notEqual(after.engine_identity, before.engine_identity)
    assert.notEqual(after.history_mark, before.history_mark)

    async function ask(): Promise<string | null> {
      const open = { kind: 'open', epoch: 0, writer: 'az1', replica: 'az2' } as const
      try {
        const reply = await witness.ask('s', { ...open, attempt: 'an-attempt' }, 'test')
        return reply?.ok === false && reply.refusal === 'WITNESS_WAITING' ? 'waits' : 'granted'
      } catch (error) {
        const { code } = error as { code?: string }
        assert.ok(code === 'STORE_UNREACHABLE' || code === 'OWNERSHIP_WAIT', String(error))
        return null
      }
    }
  },
)

/** The reload of a setting reaches sessions a moment later. */
async function openOnce(t: TestContext, url: string): Promise<Store> {
  for (;;) {
    try {
      return await open(t, url)
    } catch (error) {
      if ((error as { code?: string }).code !== 'STORE_NOT_DURABLE') throw error
    }
  }
}
