/** The operations of the simulated world take the steps of the real ones, in their order. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { failoverGroup } from '#control/operations/definitions/protection/failover.ts'
import { failoverPausedGroup } from '#control/operations/definitions/protection/paused-failover.ts'
import {
  reprotectGroup,
  reverseGroup,
  startGroup,
  stopGroup,
} from '#control/operations/definitions/protection/groups.ts'
import { calmWorld } from './calm-world.ts'

/** Steps about the servers of a group, which the world does not have, in whichever operations they are. */
const OF_SERVERS: readonly string[] = [
  'servers_are_off',
  'fence_servers',
  'define_servers',
  'start_servers',
]

/** Steps that only watch, or that are about pairs and rows, which the world does not have. */
const ABSENT: Readonly<Record<string, readonly string[]>> = {
  open: ['choose_members', 'establish'],
  failover: ['drop_left_behind'],
  reprotect: ['choose_members', 'establish'],
  reverse: [],
  close: ['settle'],
  // A snapshot for users: what is overwritten is kept by the resync as well.
  'failover-paused': ['keep'],
}

const stepsOf = (kind: { readonly steps: readonly { readonly name: string }[] }) =>
  kind.steps.map(({ name }) => name).filter((name) => !OF_SERVERS.includes(name))

const REAL = {
  open: stepsOf(startGroup),
  reverse: stepsOf(reverseGroup),
  failover: stepsOf(failoverGroup),
  reprotect: stepsOf(reprotectGroup),
  close: stepsOf(stopGroup),
  'failover-paused': stepsOf(failoverPausedGroup),
} as const

test('each simulated operation takes the steps of the real one', () => {
  const { operator, run, until, world } = calmWorld(1)
  const taken: Record<string, string[]> = { open: [...operator.steps] }
  for (const name of ['reverse', 'failover', 'reprotect', 'close', 'failover-paused'] as const) {
    run(name)
    taken[name] = [...operator.steps]
    if (name === 'close' || name === 'failover-paused') continue
    const wanted = name === 'failover' ? 'failed_over' : 'in_sync'
    until(`${name} is over`, () => world.witness.stored.state === wanted)
    world.timeline.runUntil(world.timeline.nowMs + 3_000)
  }
  for (const [name, real] of Object.entries(REAL)) {
    const absent = ABSENT[name] ?? []
    assert.deepEqual(
      absent.filter((step) => !real.includes(step)),
      [],
      `${name} has no such steps any more`,
    )
    assert.deepEqual(
      taken[name],
      real.filter((step) => !absent.includes(step)),
      name,
    )
  }
})
