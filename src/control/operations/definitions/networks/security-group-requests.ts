import { newId } from '#base/ids.ts'
import {
  defaultSecurityGroupId,
  ensureDefaults,
  listPorts,
  securityGroupsOf,
} from '#control/resources/networks.ts'
import {
  deleteRule,
  deleteSecurityGroupRow,
  findRule,
  findSecurityGroup,
  insertRule,
  insertSecurityGroup,
  listRules,
  RULES_OF_NEW_GROUP,
  rulesOf,
  updateSecurityGroup,
} from '#control/resources/security-groups.ts'
import { deleteAllTags } from '#control/resources/tags.ts'
import type { SecurityGroupRow, SecurityGroupRuleRow } from '#control/store/tables/networks.ts'
import {
  type SecurityRule,
  type SecurityRuleFault,
  securityRuleFault,
} from '#domain/security-rule.ts'
import { isFull } from './network-requests.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'

/** Security groups and rules, in the database alone. */
type Services = Pick<RequestServices, 'store' | 'clock'>

/** A group and its rules, oldest first. */
export interface GroupWithRules {
  readonly group: SecurityGroupRow
  readonly rules: readonly SecurityGroupRuleRow[]
}

export async function requestSecurityGroup(
  { store, clock }: Services,
  request: { readonly project: string; readonly name: string; readonly description: string },
): Promise<Outcome<GroupWithRules, 'QUOTA_GROUPS' | 'QUOTA_RULES' | 'NAME_RESERVED'>> {
  const { project } = request
  // Who asks for `default` by name means the one that each project has.
  if (request.name === 'default') return refused('NAME_RESERVED')
  return await store.write(async (tx) => {
    await ensureDefaults(tx, project)
    if (await isFull(tx, project, 'security_groups')) return refused('QUOTA_GROUPS')
    const rules = RULES_OF_NEW_GROUP
    if (await isFull(tx, project, 'security_group_rules', rules)) return refused('QUOTA_RULES')
    const group: SecurityGroupRow = { ...request, id: newId(), created_at: clock.wallMs() }
    await insertSecurityGroup(tx, group)
    return { ok: true, group, rules: await rulesOf(tx, group.id) }
  })
}

export async function changeSecurityGroup(
  { store }: Services,
  project: string,
  id: string,
  change: { readonly name?: string; readonly description?: string },
): Promise<Outcome<GroupWithRules, 'GROUP_UNKNOWN' | 'NAME_RESERVED'>> {
  return await store.write(async (tx) => {
    await ensureDefaults(tx, project)
    const group = await findSecurityGroup(tx, project, id)
    if (group === undefined) return refused('GROUP_UNKNOWN')
    const named = change.name !== undefined && change.name !== group.name
    const isDefault = id === defaultSecurityGroupId(project)
    if (named && (isDefault || change.name === 'default')) return refused('NAME_RESERVED')
    await updateSecurityGroup(tx, id, change)
    return { ok: true, group: { ...group, ...change }, rules: await rulesOf(tx, id) }
  })
}

/** In use: a port has it, or a rule of another group refers to it. */
export async function deleteSecurityGroup(
  { store }: Services,
  project: string,
  id: string,
): Promise<Outcome<object, 'GROUP_UNKNOWN' | 'GROUP_IS_DEFAULT' | 'GROUP_IN_USE'>> {
  return await store.write(async (tx) => {
    await ensureDefaults(tx, project)
    if ((await findSecurityGroup(tx, project, id)) === undefined) return refused('GROUP_UNKNOWN')
    if (id === defaultSecurityGroupId(project)) return refused('GROUP_IS_DEFAULT')
    const ports = await listPorts(tx, project)
    const rules = await listRules(tx, project)
    if (
      ports.some((port) => securityGroupsOf(port).includes(id)) ||
      rules.some((rule) => rule.remote_group === id && rule.security_group !== id)
    ) {
      return refused('GROUP_IN_USE')
    }
    await deleteSecurityGroupRow(tx, id)
    await deleteAllTags(tx, 'security_group', id)
    return { ok: true }
  })
}

// ---------------------------------------------------------------- rules

export interface NewRuleRequest extends SecurityRule {
  readonly project: string
  readonly group: string
  readonly description: string
}

export type NewRuleRefusal = 'GROUP_UNKNOWN' | SecurityRuleFault | 'RULE_EXISTS' | 'QUOTA_RULES'

/** GROUP_UNKNOWN: its own group, or the remote one. */
export async function requestRule(
  { store, clock }: Services,
  request: NewRuleRequest,
): Promise<Outcome<{ readonly rule: SecurityGroupRuleRow }, NewRuleRefusal>> {
  const fault = securityRuleFault(request)
  if (fault !== null) return refused(fault)
  const { project, group, remoteGroup } = request
  return await store.write(async (tx) => {
    await ensureDefaults(tx, project)
    for (const id of [group, ...(remoteGroup === null ? [] : [remoteGroup])]) {
      if ((await findSecurityGroup(tx, project, id)) === undefined) return refused('GROUP_UNKNOWN')
    }
    const rule: SecurityGroupRuleRow = {
      id: newId(),
      project,
      security_group: group,
      direction: request.direction,
      ethertype: request.ethertype,
      protocol: request.protocol,
      port_min: request.portMin,
      port_max: request.portMax,
      remote_prefix: request.remotePrefix,
      remote_group: remoteGroup,
      description: request.description,
      created_at: clock.wallMs(),
    }
    if ((await rulesOf(tx, group)).some((known) => isSame(known, rule))) {
      return refused('RULE_EXISTS')
    }
    if (await isFull(tx, project, 'security_group_rules')) return refused('QUOTA_RULES')
    await insertRule(tx, rule)
    return { ok: true, rule }
  })
}

/** What they allow; the description is not part of it. */
const MEANING = [
  'direction',
  'ethertype',
  'protocol',
  'port_min',
  'port_max',
  'remote_prefix',
  'remote_group',
] as const

const isSame = (a: SecurityGroupRuleRow, b: SecurityGroupRuleRow): boolean =>
  MEANING.every((column) => a[column] === b[column])

export async function deleteSecurityGroupRule(
  { store }: Services,
  project: string,
  id: string,
): Promise<Outcome<object, 'RULE_UNKNOWN'>> {
  return await store.write(async (tx) => {
    if ((await findRule(tx, project, id)) === undefined) return refused('RULE_UNKNOWN')
    await deleteRule(tx, id)
    return { ok: true }
  })
}
