import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { assert } from '#base/assert.ts'
import { type Clock, sleep } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { writeFileWhole } from '#base/system/files.ts'
import { Turns } from '#base/turns.ts'
import { ErrandFailed } from './errands.ts'
import { WORK_UNKNOWN } from './faults.ts'

/* Work that has a name, goes on by itself, and survives the process.
 *
 *     begin ──► running ──► done · failed · cancelled
 *                 │  ▲
 *       the agent ▼  │ and is started again
 *               (stopped, or killed)
 *
 * DIR/NAME.json is durable before the first step of the work and after its last one, and whenever the work says so in between. So whoever repeats a
 * request gets the same work, and learns what became of it. Ended ones are kept, the newest so many, for answers that were lost. */

export type WorkState = 'running' | 'done' | 'failed' | 'cancelled'

/** What every kind of work notes. Everything else in a record is its own. */
export interface WorkRecord {
  readonly id: string
  readonly state: WorkState
  readonly code: string | null
  readonly reason: string | null
  readonly startedMs: number
  readonly endedMs: number
}

export const newWork = (id: string, clock: Clock): WorkRecord => ({
  id,
  state: 'running',
  code: null,
  reason: null,
  startedMs: clock.wallMs(),
  endedMs: 0,
})

/** Of the work, while it runs and afterwards, ms. */
export const durationMs = ({ startedMs, endedMs, state }: WorkRecord, clock: Clock): number =>
  Math.max(0, (state === 'running' ? clock.wallMs() : endedMs) - startedMs)

export interface Running<R extends WorkRecord> {
  /** As it stands. */
  readonly record: R
  /** Aborted when the work is to end: it was cancelled, or the agent stops. */
  readonly signal: AbortSignal
  /** For those who look; not durable. */
  readonly note: (change: Partial<R>) => void
  /** Durable when it settles. */
  readonly persist: (change: Partial<R>) => Promise<void>
}

export interface WorksParts<R extends WorkRecord> {
  readonly directory: string
  /** For the log. */
  readonly what: string
  readonly clock: Clock
  readonly log: Log
  /** So many at once; others wait their turn. */
  readonly atOnceMax: number
  /** Carries the work out; rejects with a Fault, or with the signal's reason. What was noted is found again in `record`. */
  readonly run: (running: Running<R>) => Promise<void>
  /** Gives back what ended work held. Called again after a crash in the middle. */
  readonly ended?: (record: R) => Promise<void>
  /** The disk does not take the note of the end: gives back what takes space and would not be missed if the work went on after a crash. */
  readonly roomNeeded?: (record: R) => Promise<void>
}

/** Between two attempts to note an end, on a disk that is full. */
const NOTE_AGAIN_MS = 5_000
/** Ended work that is remembered. */
const ENDED_MAX = 1000
const FILE = /^([0-9a-zA-Z-]{1,64})\.json$/

class Ending extends Error {}
const CANCELLED = new Ending('cancelled')
const STOPPING = new Ending('the agent stops')

interface Live {
  readonly stop: AbortController
  readonly done: Promise<void>
}

export async function openWorks<R extends WorkRecord>(parts: WorksParts<R>): Promise<Works<R>> {
  await mkdir(parts.directory, { recursive: true, mode: 0o700 })
  const records = new Map<string, R>()
  for (const name of await readdir(parts.directory)) {
    const id = FILE.exec(name)?.[1]
    if (id === undefined) {
      if (name.startsWith('.')) await rm(join(parts.directory, name), { force: true })
      continue
    }
    const path = join(parts.directory, name)
    try {
      records.set(id, JSON.parse(await readFile(path, 'utf8')) as R)
    } catch (error) {
      // Files are replaced whole: this one was damaged, and a request that is repeated begins again.
      parts.log.error({ path, err: error }, `the note of a ${parts.what} cannot be read`)
      await rm(path, { force: true })
    }
  }
  return new Works(parts, records)
}

export class Works<R extends WorkRecord> {
  readonly #parts: WorksParts<R>
  readonly #records: Map<string, R>
  readonly #live = new Map<string, Live>()
  readonly #beginning = new Map<string, Promise<R>>()
  readonly #turns: Turns
  /** Changes of one record wait for each other: an end must not be overwritten by what was noted before it. */
  readonly #tails = new Map<string, Promise<unknown>>()
  readonly #closed = new AbortController()

  constructor(parts: WorksParts<R>, records: Map<string, R>) {
    this.#parts = parts
    this.#turns = new Turns(parts.atOnceMax)
    this.#records = records
  }

  /** Goes on with what was cut off. */
  async start(): Promise<void> {
    for (const record of this.#records.values()) {
      if (record.state !== 'running') await this.#parts.ended?.(record)
      else {
        this.#parts.log.info({ id: record.id }, `going on with a ${this.#parts.what}`)
        this.#launch(record.id)
      }
    }
  }

  /** The work of this name: as it stands, or begun with what `make` answers, durably. */
  async begin(id: string, make: () => R | Promise<R>): Promise<R> {
    const known = this.#records.get(id)
    if (known !== undefined) return known
    // The same request may have come twice at once.
    const beginning = this.#beginning.get(id) ?? this.#begin(id, make)
    this.#beginning.set(id, beginning)
    return await beginning.finally(() => this.#beginning.delete(id))
  }

  async #begin(id: string, make: () => R | Promise<R>): Promise<R> {
    const record = await make()
    assert(record.id === id, 'work is known by its name')
    await this.#write(record)
    this.#records.set(id, record)
    if (!this.#closed.signal.aborted) this.#launch(id)
    await this.#forgetOld()
    return record
  }

  /** Throws WORK_UNKNOWN. */
  show(id: string): R {
    const record = this.#records.get(id)
    if (record === undefined) throw new Fault(WORK_UNKNOWN, `looking for ${this.#parts.what} ${id}`)
    return record
  }

  list(): readonly R[] {
    return [...this.#records.values()]
  }

  /** Changes what running work was asked for. */
  async amend(id: string, change: Partial<R>): Promise<R> {
    await this.#change(id, change)
    return this.show(id)
  }

  /** Carries out once more what failed or was cancelled. */
  async again(id: string, change: Partial<R>): Promise<R> {
    assert(this.show(id).state !== 'running', 'work is carried out by one at a time')
    const state = { state: 'running', code: null, reason: null, endedMs: 0 } as const
    await this.#change(id, { ...change, ...state })
    if (!this.#closed.signal.aborted && !this.#live.has(id)) this.#launch(id)
    return this.show(id)
  }

  /** Settles when it has ended. What is just being begun is waited for: nobody cancels what was said to be unknown a second time. Throws WORK_UNKNOWN. */
  async cancel(id: string): Promise<R> {
    await this.#beginning.get(id)?.catch(() => undefined)
    const record = this.show(id)
    if (record.state !== 'running') return record
    const live = this.#live.get(id)
    live?.stop.abort(CANCELLED)
    // What nobody carries out, for want of what it takes, ends as well.
    await (live?.done ?? this.#end(id, { state: 'cancelled', code: null, reason: null }))
    return this.show(id)
  }

  /** Stops what runs; it goes on at the next start. */
  async close(): Promise<void> {
    this.#closed.abort(STOPPING)
    const live = [...this.#live.values()]
    for (const { stop } of live) stop.abort(STOPPING)
    await Promise.all(live.map(({ done }) => done))
  }

  #launch(id: string): void {
    const stop = new AbortController()
    const done = this.#carryOut(id, stop.signal).finally(() => this.#live.delete(id))
    this.#live.set(id, { stop, done })
  }

  async #carryOut(id: string, signal: AbortSignal): Promise<void> {
    const { log, what, run } = this.#parts
    const record = () => this.show(id)
    const running: Running<R> = {
      get record() {
        return record()
      },
      signal,
      note: (change) => void this.#records.set(id, { ...this.show(id), ...change }),
      persist: (change) => this.#change(id, change),
    }
    try {
      await this.#turns.take(signal)
      try {
        await run(running)
      } finally {
        this.#turns.give()
      }
      await this.#end(id, { state: 'done', code: null, reason: null })
    } catch (error) {
      if (signal.aborted) {
        if (signal.reason === CANCELLED) {
          await this.#end(id, { state: 'cancelled', code: null, reason: null })
        }
        return
      }
      const known = isFault(error) || error instanceof ErrandFailed
      log[known ? 'warn' : 'error']({ id, err: error }, `a ${what} failed`)
      const reason = error instanceof Error ? error.message : String(error)
      await this.#end(id, { state: 'failed', code: known ? error.code : 'INTERNAL', reason })
    }
  }

  async #end(id: string, outcome: Pick<WorkRecord, 'state' | 'code' | 'reason'>): Promise<void> {
    await this.#inTurn(id, async () => {
      const record = { ...this.show(id), ...outcome, endedMs: this.#parts.clock.wallMs() }
      if (!(await this.#writeEnd(record))) return
      try {
        await this.#parts.ended?.(record)
      } catch (error) {
        this.#parts.log.error({ id, err: error }, `what a ${this.#parts.what} held is still there`)
      }
      // Told when what it held is free.
      this.#records.set(id, record)
    })
  }

  /** A full disk is no reason to end the agent, and to cut off its clients. False: the agent stops, and the work goes on at its next start. */
  async #writeEnd(record: R): Promise<boolean> {
    const { clock, log, roomNeeded, what } = this.#parts
    for (;;) {
      try {
        await this.#write(record)
        return true
      } catch (error) {
        log.error({ id: record.id, err: error }, `the end of a ${what} cannot be noted: once more`)
        await roomNeeded?.(record).catch(() => undefined)
        const stopped = await sleep(clock, NOTE_AGAIN_MS, this.#closed.signal).catch(
          () => 'stopped',
        )
        if (stopped !== undefined) return false
      }
    }
  }

  async #change(id: string, change: Partial<R>): Promise<void> {
    await this.#inTurn(id, async () => {
      await this.#write({ ...this.show(id), ...change })
      // What was only noted meanwhile stays.
      this.#records.set(id, { ...this.show(id), ...change })
    })
  }

  #inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    const result = (this.#tails.get(id) ?? Promise.resolve()).then(work, work)
    const tail = result.catch(() => undefined)
    this.#tails.set(id, tail)
    void tail.then(() => {
      if (this.#tails.get(id) === tail) this.#tails.delete(id)
    })
    return result
  }

  async #write(record: R): Promise<void> {
    await writeFileWhole(this.#path(record.id), `${JSON.stringify(record)}\n`, 0o600)
  }

  async #forgetOld(): Promise<void> {
    const ended = this.list().filter(({ state }) => state !== 'running')
    const old = ended.toSorted((a, b) => b.endedMs - a.endedMs).slice(ENDED_MAX)
    for (const { id } of old) {
      this.#records.delete(id)
      await rm(this.#path(id), { force: true })
    }
  }

  #path(id: string): string {
    return join(this.#parts.directory, `${id}.json`)
  }
}
