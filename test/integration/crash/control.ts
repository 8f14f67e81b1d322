/**
 * A control plane that kills itself with SIGKILL once at every boundary of every step of every operation. Never part of the product.
 *
 *     node control.ts '{"directory":"…","internalPort":N,"apiPort":N,"visited":"FILE"}'
 *
 * `visited` keeps the points passed, over all lives; `only`, a regular expression, is of the points at which it dies at all. Begins when a byte arrives on standard input, so that the next life
 * can be loaded while this one runs.
 */
import { once } from 'node:events'
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import process from 'node:process'
import { type RegionControlOptions, startRegionControl } from '../../support/region-parts.ts'

interface Arguments {
  readonly directory: string
  readonly internalPort: number
  readonly apiPort: number
  readonly visited: string
  readonly only: string
  /** What it serves and knows beyond what a region of tests has. */
  readonly also: Pick<RegionControlOptions, 'backups' | 'more'>
}

const { directory, internalPort, apiPort, visited, only, also } = JSON.parse(
  process.argv[2] ?? '',
) as Arguments
// Kept now or never: a process that is killed writes nothing at its end, and the next life would compile everything again.
flushCompileCache()
await once(process.stdin, 'data')
const passed = new Set(readFileSync(visited, 'utf8').split('\n'))

const { app } = await startRegionControl({
  directory,
  internalPort,
  native: true,
  ...also,
  crashPoint(operation, step, phase) {
    // The moment before a step is the moment after the one before it, but for the first.
    const point = `${operation} ${step} ${phase}`
    if (phase === 'before-act' || passed.has(point) || !new RegExp(only).test(point)) return
    const file = openSync(visited, 'a')
    writeSync(file, `${point}\n`)
    fsyncSync(file)
    closeSync(file)
    process.kill(process.pid, 'SIGKILL')
    // The signal is on its way; nothing more of this process may happen.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  },
})
await app.listen({ host: '127.0.0.1', port: apiPort })
