import { unreachable } from '#base/assert.ts'
import { requestGroupCommand } from '#control/operations/definitions/protection/group-requests.ts'
import {
  isPaused,
  requestPausedFailover,
} from '#control/operations/definitions/protection/paused-failover-requests.ts'
import { preflight } from '#control/operations/definitions/recovery/preflight.ts'
import {
  type Growth,
  requestGrowth,
} from '#control/operations/definitions/protection/replication-requests.ts'
import { findGroup, groupStation, groupStatus } from '#control/resources/groups.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import {
  type GroupCommand,
  type GroupStatus,
  otherStation,
  type Station,
} from '#domain/protection-group.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, principalOf, projectOf } from '../http/request.ts'
import { isVolumeId } from './codec.ts'
import { refuse } from './errors.ts'
import { isMembers, type Members, sizeOf } from './input.ts'
import { flagMember, GroupPath, GROUPS_BASE } from './replication-input.ts'
import {
  conflict,
  groupActionRefusal,
  groupUnknown,
  growthRefusal,
  pausedFailoverRefusal,
} from './replication-refusals.ts'
import { demandSuccess, endOf, stillHidden, unlessHidden, untilShown } from './replication-waits.ts'
import type { EvsServices } from './services.ts'

/* Actions of consistency groups. The single key of the body names the action; success is 200 without a body.
 *
 * Failover, reverse, sync and reprotect answer when they are accepted, and the group shows how they go on. Stop answers when the group is
 * paused, because what it is good for (an update) is refused before. Extend answers when every disk has its size.
 */

type Action = 'failover' | 'sync' | 'reverse' | 'stop' | 'reprotect'

const KEYS: Readonly<Record<string, Action | 'extend'>> = {
  'os-failover-replication-consistency-group': 'failover',
  'os-sync-replication-consistency-group': 'sync',
  'os-reverse-replication-consistency-group': 'reverse',
  'os-stop-replication-consistency-group': 'stop',
  'os-reprotect-replication-consistency-group': 'reprotect',
  'os-extend-replication-volumes': 'extend',
}

/**
 * What an action does in each state that it is accepted in: `go`, or nothing because that is what the group does already. In every other
 * state it is refused. Written in our own states, of which this API shows fewer (replication-words.ts).
 */
export const ACTIONS: Record<Action, Partial<Record<GroupStatus, 'go' | 'nothing'>>> = {
  // available: by force, to what the DR disks held when the group was paused.
  failover: {
    available: 'go',
    'error-updating': 'go',
    protected: 'go',
    'error-reversing': 'go',
    'error-failing-over': 'go',
  },
  sync: {
    available: 'go',
    'error-starting': 'go',
    'error-updating': 'go',
    starting: 'nothing',
    protected: 'nothing',
  },
  reverse: { protected: 'go', 'error-reversing': 'go' },
  stop: {
    protected: 'go',
    'error-starting': 'go',
    'error-stopping': 'go',
    available: 'nothing',
    stopping: 'nothing',
  },
  reprotect: { 'failed-over': 'go', 'error-reprotecting': 'go' },
}

const STOP_MOST_MS = 30_000
const STOPPING =
  'The group is still being paused: a site answers slowly or not at all. Repeat the request; it succeeds when the group is paused.'
/** Longer than an extension of many disks takes; a client that waits shorter can repeat it. */
const EXTEND_MOST_MS = 120_000
const EXTENDING =
  'Disks are still being extended: a site answers slowly or not at all. Show the disks; repeat the request for those that did not grow.'

export function consistencyActionRoute(
  app: Api,
  services: EvsServices,
  groupId: (params: { replication_consistency_group_id: string }) => string,
): void {
  app.post(
    `${GROUPS_BASE}/:replication_consistency_group_id/action`,
    { schema: { params: GroupPath }, config: { audit: 'consistency-group.action' } },
    async (request, reply) => {
      const { key, action, members } = actionOf(request.body)
      const id = groupId(request.params)
      auditTarget(request, id, { action: key, user: principalOf(request).user.id })
      const project = projectOf(request)
      await theGroup(services, project, id)
      if (action === 'extend') await extend(services, project, id, growthOf(members))
      else await act(services, project, id, action, members)
      return await reply.code(200).send()
    },
  )
}

function actionOf(body: unknown) {
  const keys = isMembers(body) ? Object.keys(body) : []
  const [key] = keys
  const action = key === undefined ? undefined : KEYS[key]
  if (!isMembers(body) || key === undefined || action === undefined || keys.length !== 1) {
    throw refuse('EVS.5400', `The body names exactly one action: ${Object.keys(KEYS).join(', ')}.`)
  }
  const members = body[key] ?? {}
  if (!isMembers(members)) throw refuse('EVS.5400', `${key}: null or an object.`)
  return { key, action, members }
}

async function act(
  services: EvsServices,
  project: string,
  id: string,
  action: Action,
  members: Members,
): Promise<void> {
  const { agents } = services
  const shown = await untilShown(services, project, [id])
  const group = await theGroup(services, project, id)
  const status = groupStatus(group)
  const judged = ACTIONS[action][status]
  if (judged === 'nothing' && status !== 'stopping') return
  if (judged === 'nothing') throw refuse('EVS.5503', STOPPING)
  if (judged === undefined) throw shown ? wrongState(action, status) : stillHidden()
  const command = commandOf(action, group, members)
  if (action === 'reprotect') {
    const silent = [group.source_az, group.target_az].find((site) => !agents.heard(site))
    if (silent !== undefined) throw conflict(`Nothing is heard from ${silent}. Repair it first.`)
  }
  if (command.kind === 'failover') {
    if (await services.store.read((db) => isPaused(db, group))) {
      return await failoverPaused(services, project, id, command)
    }
    await lookAhead(services, group, command)
  }
  const outcome = await requestGroupCommand(services, project, id, command, 'evs')
  if (!outcome.ok) throw groupActionRefusal(outcome.refusal, action)
  if (action !== 'stop') return
  demandSuccess(await endOf(services, outcome.operation, STOP_MOST_MS), STOPPING)
}

async function theGroup({ store }: EvsServices, project: string, id: string) {
  const group = await findGroup(store.db, project, id, 'evs')
  if (group === undefined) throw groupUnknown()
  return group
}

async function failoverPaused(
  services: EvsServices,
  project: string,
  id: string,
  { force, preferredOff }: Extract<GroupCommand, { readonly kind: 'failover' }>,
): Promise<void> {
  const outcome = await requestPausedFailover(services, project, id, {
    force,
    preferredOff: preferredOff === true,
  })
  if (!outcome.ok) throw pausedFailoverRefusal(outcome.refusal, outcome.pausedAt ?? null)
}

/** What would make it fail half way is said before anything is begun. */
async function lookAhead(
  services: EvsServices,
  group: ProtectionGroupRow,
  command: Extract<GroupCommand, { readonly kind: 'failover' }>,
): Promise<void> {
  const { refusal } = await preflight(services, group, command)
  if (refusal !== null) throw groupActionRefusal(refusal, 'failover')
}

function wrongState(action: Action, status: GroupStatus) {
  if (action === 'sync' && ACTIONS.reprotect[status] !== undefined) {
    return conflict(
      'The group has failed over. Send os-reprotect-replication-consistency-group when the other zone is repaired.',
    )
  }
  return groupActionRefusal('GROUP_STATE', action)
}

function commandOf(
  action: Action,
  group: ProtectionGroupRow,
  members: Members,
): Exclude<GroupCommand, { readonly kind: 'rename' }> {
  switch (action) {
    case 'failover':
      return {
        kind: 'failover',
        force: flagMember(members, 'force'),
        preferredOff: flagMember(members, 'preferred_site_is_off'),
      }
    case 'sync':
    case 'reprotect':
      return { kind: 'start' }
    case 'reverse': {
      // A reversal that failed half way may have switched already: it goes on to where it was going.
      const aimedAt = group.status === 'error-reversing' ? group.reversing_to : null
      return {
        kind: 'reverse',
        to: (aimedAt as Station | null) ?? otherStation(groupStation(group)),
      }
    }
    case 'stop':
      return { kind: 'stop', unfinished: true }
    default:
      return unreachable(action)
  }
}

// ---------------------------------------------------------------- extend

/** `{"replications": [{"id", "new_size"}, …]}`, or one of these by itself, which is all that one client can send. */
function growthOf(members: Members): readonly Growth[] {
  const listed = members['replications'] ?? [members]
  if (!Array.isArray(listed) || listed.length === 0) {
    throw refuse('EVS.1011', 'replications: a list of {"id", "new_size"}.')
  }
  const found = new Map<string, Growth>()
  for (const item of listed as readonly unknown[]) {
    const id = isMembers(item) ? item['id'] : undefined
    if (!isMembers(item) || !isVolumeId(id) || found.has(id)) {
      throw refuse('EVS.5400', 'replications: each pair once, by its id.')
    }
    if (item['new_size'] === undefined) throw refuse('EVS.1011', 'new_size: missing.')
    found.set(id, { pair: id, newSizeGb: sizeOf(item['new_size']) })
  }
  return [...found.values()]
}

async function extend(
  services: EvsServices,
  project: string,
  id: string,
  growth: readonly Growth[],
): Promise<void> {
  const shown = await untilShown(services, project, [id])
  const outcome = await requestGrowth(services, project, id, growth)
  if (!outcome.ok) throw unlessHidden(shown, outcome.refusal, growthRefusal(outcome.refusal))
  const ends = await Promise.all(
    outcome.operations.map((one) => endOf(services, one, EXTEND_MOST_MS)),
  )
  for (const end of ends) demandSuccess(end, EXTENDING)
}
