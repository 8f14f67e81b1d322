import { newId } from '#base/ids.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { SecurityGroupRow, SecurityGroupRuleRow } from '#control/store/tables/networks.ts'

/** Security groups and their rules: stored and shown, see docs/compatibility/network.md for what enforces them. */
type Db = Queries | Transaction

/** Newest first. */
export async function listSecurityGroups(db: Db, project: string): Promise<SecurityGroupRow[]> {
  return await db
    .selectFrom('security_groups')
    .selectAll()
    .where('project', '=', project)
    .orderBy('created_at', 'desc')
    .orderBy('id')
    .execute()
}

export async function findSecurityGroup(
  db: Db,
  project: string,
  id: string,
): Promise<SecurityGroupRow | undefined> {
  return await db
    .selectFrom('security_groups')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
}

/** The group with this id, or else all with this name: names need not be unique. */
export async function securityGroupsNamed(
  db: Db,
  project: string,
  idOrName: string,
): Promise<SecurityGroupRow[]> {
  const byId = await findSecurityGroup(db, project, idOrName)
  if (byId !== undefined) return [byId]
  return await db
    .selectFrom('security_groups')
    .selectAll()
    .where('project', '=', project)
    .where('name', '=', idOrName)
    .orderBy('id')
    .execute()
}

/** How many rules `insertSecurityGroup` adds. */
export const RULES_OF_NEW_GROUP = 4

/** Adds the group and the four rules that each group begins with: out to everybody, in from its own members. */
export async function insertSecurityGroup(tx: Transaction, row: SecurityGroupRow): Promise<void> {
  await tx.insertInto('security_groups').values(row).execute()
  for (const direction of ['egress', 'ingress'] as const) {
    for (const ethertype of ['IPv4', 'IPv6'] as const) {
      await insertRule(tx, {
        id: newId(),
        project: row.project,
        security_group: row.id,
        direction,
        ethertype,
        protocol: null,
        port_min: null,
        port_max: null,
        remote_prefix: null,
        remote_group: direction === 'ingress' ? row.id : null,
        description: '',
        created_at: row.created_at,
      })
    }
  }
}

export async function updateSecurityGroup(
  tx: Transaction,
  id: string,
  change: Partial<Pick<SecurityGroupRow, 'name' | 'description'>>,
): Promise<void> {
  if (Object.keys(change).length === 0) return
  await tx.updateTable('security_groups').set(change).where('id', '=', id).execute()
}

/** The group and its rules. */
export async function deleteSecurityGroupRow(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('security_group_rules').where('security_group', '=', id).execute()
  await tx.deleteFrom('security_groups').where('id', '=', id).execute()
}

// ---------------------------------------------------------------- rules

/** Oldest first, so that the rules that a group began with come first. */
export async function listRules(db: Db, project: string): Promise<SecurityGroupRuleRow[]> {
  return await db
    .selectFrom('security_group_rules')
    .selectAll()
    .where('project', '=', project)
    .orderBy('created_at')
    .orderBy('direction')
    .orderBy('ethertype')
    .orderBy('id')
    .execute()
}

export async function rulesOf(db: Db, group: string): Promise<SecurityGroupRuleRow[]> {
  return await db
    .selectFrom('security_group_rules')
    .selectAll()
    .where('security_group', '=', group)
    .orderBy('created_at')
    .orderBy('direction')
    .orderBy('ethertype')
    .orderBy('id')
    .execute()
}

export async function findRule(
  db: Db,
  project: string,
  id: string,
): Promise<SecurityGroupRuleRow | undefined> {
  return await db
    .selectFrom('security_group_rules')
    .selectAll()
    .where('project', '=', project)
    .where('id', '=', id)
    .executeTakeFirst()
}

export async function insertRule(tx: Transaction, row: SecurityGroupRuleRow): Promise<void> {
  await tx.insertInto('security_group_rules').values(row).execute()
}

export async function deleteRule(tx: Transaction, id: string): Promise<void> {
  await tx.deleteFrom('security_group_rules').where('id', '=', id).execute()
}
