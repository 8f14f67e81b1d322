import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import type { OperationView } from '#control/operations/engine.ts'
import { openStore } from '#control/store/open.ts'
import type { SampleInput } from './sample.ts'

/* An operation in a process of its own, which is killed at each boundary of each step. */

const HOST = join(import.meta.dirname, 'host.ts')

export function scratch(t: TestContext) {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-operations-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return { url: `sqlite:${dir}/state.db`, trace: `${dir}/trace` }
}

/** An engine in this process. */
export interface Point {
  operation: string
  step: string
  phase: string
}

/** Runs the host to its end, however that comes. */
function host(args: object): Promise<{
  signal: string | null
  points: Point[]
  operations: OperationView[]
}> {
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [HOST, JSON.stringify(args)],
      { timeout: 60_000 },
      (error, stdout, stderr) => {
        if (error !== null && error.signal !== 'SIGKILL')
          return reject(new Error(stderr, { cause: error }))
        const said = stdout
          .split('\n')
          .filter((line) => line !== '')
          .map((line) => JSON.parse(line) as { point?: Point; operation?: OperationView })
        resolve({
          signal: error?.signal ?? null,
          points: said.flatMap(({ point }) => point ?? []),
          operations: said.flatMap(({ operation: one }) => one ?? []),
        })
      },
    )
  })
}

/** A crash at each boundary of each step in turn. The operation ends with `status` all the same, and leaves as many rows as without. Returns the boundaries. */
export async function everyBoundary(
  t: TestContext,
  input: Omit<SampleInput, 'trace'>,
  status: string,
): Promise<readonly Point[]> {
  const clean = scratch(t)
  const submit = (trace: string) => ({ trace, ...input })
  const { points, operations } = await host({
    url: clean.url,
    submit: submit(clean.trace),
    crash: null,
  })
  assert.equal(operations[0]?.status, status)
  const expected = await rowsIn(clean.url)
  const distinct = [...new Map(points.map((point) => [JSON.stringify(point), point])).values()]
  for (const crash of distinct) {
    const name = `${crash.operation} ${crash.step} ${crash.phase}`
    const { url, trace } = scratch(t)
    const first = await host({ url, submit: submit(trace), crash })
    assert.equal(first.signal, 'SIGKILL', `${name}: the host was killed`)
    const second = await host({ url, submit: null, crash: null })
    assert.equal(second.signal, null)
    const [ended] = second.operations
    assert.equal(ended?.status, status, `${name}: the operation ends as declared`)
    assert.equal(ended?.errorCode, operations[0]?.errorCode)
    assert.deepEqual(await rowsIn(url), expected, `${name}: as many rows as without a crash`)
  }
  return distinct
}

/** How many there are of what operations write; none of these has not ended. */
async function rowsIn(url: string): Promise<Readonly<Record<string, number>>> {
  const store = await openStore({ url, clock: systemClock, log: createLog('test', 'silent') })
  try {
    const operations = await store.db.selectFrom('operations').select('end_at').execute()
    assert.ok(
      operations.every(({ end_at }) => end_at !== null),
      'nothing is left over',
    )
    const count = async (table: 'operation_steps' | 'audit') =>
      (await store.db.selectFrom(table).selectAll().execute()).length
    return {
      operations: operations.length,
      operation_steps: await count('operation_steps'),
      audit: await count('audit'),
    }
  } finally {
    await store.close()
  }
}
