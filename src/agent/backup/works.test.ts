import assert from 'node:assert/strict'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { BACKUP_REFUSED, WORK_UNKNOWN } from './faults.ts'
import { newWork, openWorks, type Running, type WorkRecord, type Works } from './works.ts'

interface Step extends WorkRecord {
  readonly steps: number
}

interface World {
  /** By name: settles when the work may take its next step. */
  readonly running: Map<string, Running<Step>>
  readonly ended: string[]
  readonly gates: Map<string, { go(): void; fail(error: Error): void }>
  open(atOnceMax?: number, clock?: Clock): Promise<Works<Step>>
  begin(works: Works<Step>, id: string): Promise<Step>
}

async function withWorld(act: (world: World, directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-works-'))
  const world: World = {
    running: new Map(),
    ended: [],
    gates: new Map(),
    open: (atOnceMax = 2, clock = systemClock) =>
      openWorks<Step>({
        directory,
        what: 'test',
        clock,
        log: createLog('test', 'silent'),
        atOnceMax,
        async run(running) {
          const { id, steps } = running.record
          world.running.set(id, running)
          await new Promise<void>((resolve, reject) => {
            world.gates.set(id, { go: resolve, fail: reject })
            const stop = () => reject(running.signal.reason as Error)
            running.signal.addEventListener('abort', stop, { once: true })
          })
          await running.persist({ steps: steps + 1 })
        },
        async ended({ id }) {
          world.ended.push(id)
        },
      }),
    begin: (works, id) => works.begin(id, () => ({ ...newWork(id, systemClock), steps: 0 })),
  }
  try {
    await act(world, directory)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

async function settled(works: Works<Step>, id: string): Promise<Step> {
  while (works.show(id).state === 'running') await new Promise((r) => setImmediate(r))
  return works.show(id)
}

test('work of one name is begun once, and what became of it is told again, also after a restart', () =>
  withWorld(async (world) => {
    const works = await world.open()
    const [one, two] = await Promise.all([world.begin(works, 'a'), world.begin(works, 'a')])
    assert.equal(one, two)
    world.gates.get('a')?.go()
    assert.equal((await settled(works, 'a')).state, 'done')
    const later = await world.open()
    await later.start()
    assert.deepEqual(await world.begin(later, 'a'), works.show('a'))
    assert.throws(
      () => later.show('b'),
      (error) => isFault(error, WORK_UNKNOWN),
    )
  }))

test('what runs when the agent stops goes on at the next start, with what it had noted', () =>
  withWorld(async (world) => {
    const works = await world.open()
    await world.begin(works, 'a')
    await world.running.get('a')?.persist({ steps: 7 })
    await works.close()
    assert.deepEqual(world.ended, [])
    const later = await world.open()
    await later.start()
    await new Promise((r) => setImmediate(r))
    world.gates.get('a')?.go()
    const end = await settled(later, 'a')
    assert.deepEqual([end.state, end.steps], ['done', 8])
    assert.deepEqual(world.ended, ['a'])
  }))

test('what is asked for while work ends does not make it run again', () =>
  withWorld(async (world) => {
    const works = await world.open()
    await world.begin(works, 'a')
    world.gates.get('a')?.go()
    for (let i = 0; i < 20; i++) {
      await works.amend('a', { startedMs: i })
      await new Promise((r) => setImmediate(r))
    }
    const end = await settled(works, 'a')
    assert.deepEqual([end.state, end.steps, end.startedMs], ['done', 1, 19])
  }))

test('a failure is told with its code, and can be tried again', () =>
  withWorld(async (world) => {
    const works = await world.open()
    await world.begin(works, 'a')
    world.gates.get('a')?.fail(new Fault(BACKUP_REFUSED, 'testing'))
    const failed = await settled(works, 'a')
    assert.deepEqual([failed.state, failed.code], ['failed', 'BACKUP_REFUSED'])
    assert.match(failed.reason ?? '', /testing/)
    assert.equal((await works.again('a', {})).state, 'running')
    await new Promise((r) => setImmediate(r))
    world.gates.get('a')?.go()
    assert.equal((await settled(works, 'a')).state, 'done')
  }))

test('more than may run at once waits, and can be cancelled while it waits', () =>
  withWorld(async (world) => {
    const works = await world.open(1)
    for (const id of ['a', 'b', 'c']) await world.begin(works, id)
    assert.deepEqual([...world.running.keys()], ['a'])
    assert.equal((await works.cancel('b')).state, 'cancelled')
    assert.equal((await works.cancel('b')).state, 'cancelled')
    world.gates.get('a')?.go()
    await settled(works, 'a')
    await new Promise((r) => setImmediate(r))
    assert.deepEqual([...world.running.keys()], ['a', 'c'])
    assert.equal((await works.cancel('c')).state, 'cancelled')
    assert.deepEqual(world.ended.toSorted(), ['a', 'b', 'c'])
  }))

test('a note that cannot be read is told and forgotten, the others stand', () =>
  withWorld(async (world, directory) => {
    const works = await world.open()
    await world.begin(works, 'a')
    world.gates.get('a')?.go()
    await settled(works, 'a')
    await writeFile(join(directory, 'b.json'), '{"id":')
    const later = await world.open()
    assert.deepEqual(
      later.list().map(({ id }) => id),
      ['a'],
    )
  }))

test('what is being begun is cancelled, and not said to be unknown', () =>
  withWorld(async (world) => {
    const works = await world.open()
    const begun = world.begin(works, 'a')
    assert.equal((await works.cancel('a')).state, 'cancelled')
    await begun
    await assert.rejects(works.cancel('b'), (error) => isFault(error, WORK_UNKNOWN))
  }))

test('an end that the disk does not take is tried again until it is durable, and then told', () =>
  withWorld(async (world, directory) => {
    let waits: (fire: () => void) => void = () => undefined
    const waiting = () => new Promise<() => void>((resolve) => (waits = resolve))
    const clock: Clock = {
      ...systemClock,
      after: (_, fire) => {
        waits(fire)
        return () => undefined
      },
    }
    const works = await world.open(2, clock)
    await world.begin(works, 'a')
    await world.begin(works, 'b')
    await rename(directory, `${directory}-gone`)
    let next = waiting()
    world.gates.get('a')?.fail(new Fault(BACKUP_REFUSED, 'testing'))
    let again = await next
    next = waiting()
    again()
    again = await next
    assert.equal(works.show('a').state, 'running')
    assert.deepEqual(world.ended, [])
    await rename(`${directory}-gone`, directory)
    again()
    assert.equal((await settled(works, 'a')).state, 'failed')
    assert.deepEqual(world.ended, ['a'])
    // An agent that is stopped does not wait for room.
    await rename(directory, `${directory}-gone`)
    next = waiting()
    world.gates.get('b')?.fail(new Fault(BACKUP_REFUSED, 'testing'))
    await next
    await works.close()
    await rename(`${directory}-gone`, directory)
    const later = await world.open()
    assert.deepEqual([later.show('a').code, later.show('b').state], ['BACKUP_REFUSED', 'running'])
  }))
