import type { GroupStatus } from './protection-group.ts'

/**
 * In which states of its group something may be done with a pair, an instance or a drill of it: the published lists, which differ in single
 * states. A group in motion has no writer that rests, so none of its states of that kind is in any of them.
 */
type Deed = 'change' | 'drill' | 'detach' | 'delete-pair'

const RESTING = [
  'available',
  'protected',
  'failed-over',
  'error-starting',
  'error-stopping',
  'error-reversing',
  'error-failing-over',
] as const satisfies readonly GroupStatus[]

export const GROUP_STATES_FOR: Readonly<Record<Deed, readonly GroupStatus[]>> = {
  /** Whatever needs a writer that the group has for good: new pairs, growth, NICs, resizing, attaching. */
  change: ['available', 'protected'],
  detach: RESTING,
  /** A drill never touches replication, so failed switches are no obstacle. */
  drill: [...RESTING, 'error-reprotecting'],
  'delete-pair': [...RESTING, 'error-reprotecting', 'error-deleting'],
}
