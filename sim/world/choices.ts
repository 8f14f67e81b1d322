import type { OperationName } from './operations.ts'
import type { Operator } from './operator.ts'
import type { Random } from './random.ts'
import type { World } from './world.ts'

/* What operators do in the chaos, and what somebody does at once who believes that a site has gone. */

/** `stops`: by somebody who stops the group often, and fails it over while it is stopped. */
export function chooseOperation(
  world: World,
  operator: Operator,
  random: Random,
  stops: boolean,
): void {
  if (operator.busy !== null) return
  const { epoch, state } = world.witness.stored
  const never = epoch === 0
  const again = world.plan.steady === true ? 1 : stops ? 0.4 : 0.8
  const close = stops ? 0.3 : 0.04
  const weights: Record<string, Partial<Record<OperationName, number>>> = {
    closed: never ? { open: 1 } : { open: again, 'failover-paused': 1 - again },
    in_sync: {
      reverse: 0.3,
      failover: 0.25,
      close,
      arbitrate: 0.15,
      freeze: 0.06,
      verify: 0.15,
    },
    resyncing: { failover: 0.3, close, freeze: 0.06 },
    solo: { failover: 0.25, close, freeze: 0.06, reprotect: 0.05 },
    frozen: { thaw: 0.4, failover: 0.4, close: 0.1 },
    failed_over: { reprotect: 0.75, close: 0.1, freeze: 0.06 },
  }
  if (random.chance(0.15)) return operator.start('tell')
  const failed = world.sites.some((site) => site.failed)
  if (failed && random.chance(0.5)) {
    return operator.start(random.chance(0.3) ? 'close' : 'rebuild')
  }
  let dice = random.next()
  for (const [name, weight] of Object.entries(weights[state] ?? {})) {
    dice -= weight
    if (dice < 0) return operator.start(name as OperationName)
  }
}

/**
 * Changes that a writer hears nothing of while it is cut off: none of them may end the lease that it still answers under. Each is begun as
 * soon as the one before has ended.
 */
const HASTY: readonly (readonly OperationName[])[] = [
  ['failover'],
  ['freeze', 'thaw', 'failover'],
  ['close', 'failover-paused'],
]

/** `stops`: by somebody who does not only fail over. */
export const hastyOperations = (random: Random, stops: boolean): readonly OperationName[] =>
  stops ? random.pick(HASTY) : ['failover']

/** As long as each of them can be begun: somebody else may have begun another one. */
export function inARow(world: World, operator: Operator, names: readonly OperationName[]): void {
  const [first, ...rest] = names
  if (first === undefined || operator.patient || operator.busy !== null) return
  if (rest.length === 0) return operator.start(first)
  operator.start(first, () => world.timeline.after(0, () => inARow(world, operator, rest)))
}
