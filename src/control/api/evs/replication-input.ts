import Type from 'typebox'
import type { Arbitration } from '#control/sites/witness.ts'
import { refuse } from './errors.ts'
import { isMembers, type Members, textMember } from './input.ts'

/* What the requests about pairs and groups have in common: paths, and members of their bodies. */

export const GROUPS_BASE = '/v2/:project_id/os-vendor-replication-consistency-groups'
export const GroupPath = Type.Object({
  project_id: Type.String(),
  replication_consistency_group_id: Type.String(),
})

export function textsOf(members: Members): {
  readonly name: string
  readonly description: string
} {
  return {
    name: textMember(members, 'name', 'EVS.1003') ?? '',
    description: textMember(members, 'description', 'EVS.1004') ?? '',
  }
}

export function demandModel(members: Members): void {
  if (members['replication_model'] === 'hypermetro') return
  throw refuse('EVS.5400', 'replication_model: must be hypermetro.')
}

/** The zone of the production disks. */
export function stationMember(members: Members): string {
  const value = members['priority_station']
  if (typeof value === 'string' && value !== '') return value
  throw refuse('EVS.5400', 'priority_station: the availability zone of the production disk.')
}

/**
 * An extension of ours, as in SDRS: `{"mode": "witness" | "static-priority"}`. The preferred site is the priority station, here and after every
 * switch; `preferred_site` may say so.
 */
export function arbitrationMember(members: Members, station: string): Arbitration | undefined {
  const value = members['arbitration'] ?? null
  if (value === null) return undefined
  const mode = isMembers(value) ? value['mode'] : undefined
  const preferred = (isMembers(value) ? value['preferred_site'] : undefined) ?? station
  if ((mode !== 'witness' && mode !== 'static-priority') || preferred !== station) {
    throw refuse(
      'EVS.5400',
      'arbitration: {"mode": "witness" or "static-priority"}; the preferred site is priority_station.',
    )
  }
  return { mode, preferred: station }
}

export function flagMember(members: Members, name: string): boolean {
  const value = members[name] ?? false
  if (typeof value === 'boolean') return value
  throw refuse('EVS.5400', `${name}: true or false.`)
}
