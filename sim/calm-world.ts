import assert from 'node:assert/strict'
import { Load } from './world/load.ts'
import type { OperationName } from './world/operations.ts'
import { Operator } from './world/operator.ts'
import { World } from './world/world.ts'

/** A group that is in sync, with clients at work, and nothing broken. `staticShare` 1: in mode static-priority. */
export function calmWorld(seed: number, staticShare = 0) {
  const world = new World(seed, { name: 'honest', staticShare, steady: true })
  const operator = new Operator(world)
  const load = new Load(world)
  const until = (what: string, condition: () => boolean) => {
    const limit = world.timeline.nowMs + 60_000
    while (!condition()) {
      assert(world.timeline.nowMs < limit, `never: ${what}`)
      world.timeline.runUntil(world.timeline.nowMs + 1)
    }
  }
  const run = (name: OperationName) => {
    operator.start(name)
    until(`${name} ends`, () => operator.busy === null)
  }
  run('open')
  until('in_sync', () => world.witness.stored.state === 'in_sync')
  world.timeline.runUntil(world.timeline.nowMs + 1_000)
  const isolate = (site: string, others: readonly string[]) => {
    for (const other of others) {
      world.network.cut(site, other)
      world.network.cut(other, site)
    }
  }
  return { world, operator, load, until, run, isolate }
}
