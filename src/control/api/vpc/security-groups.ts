import Type from 'typebox'
import { provideDefaults } from '#control/operations/definitions/networks/network-requests.ts'
import {
  deleteSecurityGroup,
  deleteSecurityGroupRule,
  type NewRuleRefusal,
  requestRule,
  requestSecurityGroup,
} from '#control/operations/definitions/networks/security-group-requests.ts'
import {
  findRule,
  findSecurityGroup,
  listRules,
  listSecurityGroups,
  rulesOf,
} from '#control/resources/security-groups.ts'
import type { SecurityGroupRow, SecurityGroupRuleRow } from '#control/store/tables/networks.ts'
import type { Api } from '../http/dialect.ts'
import { type Query, valueOf } from '../http/page.ts'
import type { Refusal } from '../http/refusal.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import { RULE_REFUSALS, RuleBody, ruleRequest } from '../network/rule-body.ts'
import { ruleObject } from '../network/views.ts'
import type { VpcServices } from './services.ts'
import { refuse, type VpcCode } from './errors.ts'
import { pageRows } from './lists.ts'
import { Description } from './vpcs.ts'

const GroupPath = Type.Object({ project_id: Type.String(), security_group_id: Type.String() })
const RulePath = Type.Object({ project_id: Type.String(), rule_id: Type.String() })

const GroupBody = Type.Object({
  security_group: Type.Object({
    name: Type.String({ minLength: 1, maxLength: 64 }),
    description: optional(Description),
  }),
})

const groupObject = (row: SecurityGroupRow, rules: readonly SecurityGroupRuleRow[]) => ({
  id: row.id,
  name: row.name,
  description: row.description,
  enterprise_project_id: '0',
  security_group_rules: rules.map(ruleObject),
})

export function securityGroupRoutes(app: Api, services: VpcServices): void {
  const base = '/v1/:project_id/security-groups'
  const { db } = services.store

  app.post(
    base,
    { schema: { body: GroupBody }, config: { audit: 'security-group.create' } },
    async (request) => {
      const { name, description } = request.body.security_group
      const project = projectOf(request)
      const wanted = { project, name, description: description ?? '' }
      const outcome = await requestSecurityGroup(services, wanted)
      if (!outcome.ok) throw groupRefusal(outcome.refusal)
      auditTarget(request, outcome.group.id)
      return { security_group: groupObject(outcome.group, outcome.rules) }
    },
  )

  app.get(base, async (request) => {
    const project = projectOf(request)
    await provideDefaults(services, project)
    const rows = pageRows(await listSecurityGroups(db, project), request.query)
    const rules = Map.groupBy(await listRules(db, project), (rule) => rule.security_group)
    return { security_groups: rows.map((row) => groupObject(row, rules.get(row.id) ?? [])) }
  })

  app.get(`${base}/:security_group_id`, { schema: { params: GroupPath } }, async (request) => {
    const { security_group_id: id } = request.params
    const project = projectOf(request)
    await provideDefaults(services, project)
    const row = await findSecurityGroup(db, project, id)
    if (row === undefined) throw refuse('VPC.0202')
    return { security_group: groupObject(row, await rulesOf(db, id)) }
  })

  app.delete(
    `${base}/:security_group_id`,
    { schema: { params: GroupPath }, config: { audit: 'security-group.delete' } },
    async (request, reply) => {
      const { security_group_id: id } = request.params
      auditTarget(request, id)
      const outcome = await deleteSecurityGroup(services, projectOf(request), id)
      if (!outcome.ok) throw groupRefusal(outcome.refusal)
      return await reply.code(204).send()
    },
  )

  ruleRoutes(app, services)
}

function ruleRoutes(app: Api, services: VpcServices): void {
  const base = '/v1/:project_id/security-group-rules'
  const { db } = services.store

  app.post(
    base,
    { schema: { body: RuleBody }, config: { audit: 'security-group-rule.create' } },
    async (request) => {
      const outcome = await requestRule(services, ruleRequest(projectOf(request), request.body))
      if (!outcome.ok) {
        throw refuse(RULE_CODES[outcome.refusal] ?? 'VPC.0101', RULE_REFUSALS[outcome.refusal])
      }
      auditTarget(request, outcome.rule.id)
      return { security_group_rule: ruleObject(outcome.rule) }
    },
  )

  app.get(base, async (request) => {
    const project = projectOf(request)
    await provideDefaults(services, project)
    const group = valueOf(request.query as Query, 'security_group_id')
    const rows = (await listRules(db, project)).filter(
      (row) => group === undefined || row.security_group === group,
    )
    return { security_group_rules: pageRows(rows, request.query).map(ruleObject) }
  })

  app.get(`${base}/:rule_id`, { schema: { params: RulePath } }, async (request) => {
    const project = projectOf(request)
    await provideDefaults(services, project)
    const row = await findRule(db, project, request.params.rule_id)
    if (row === undefined) throw refuse('VPC.0202')
    return { security_group_rule: ruleObject(row) }
  })

  app.delete(
    `${base}/:rule_id`,
    { schema: { params: RulePath }, config: { audit: 'security-group-rule.delete' } },
    async (request, reply) => {
      const { rule_id: id } = request.params
      auditTarget(request, id)
      const outcome = await deleteSecurityGroupRule(services, projectOf(request), id)
      if (!outcome.ok) throw refuse('VPC.0202')
      return await reply.code(204).send()
    },
  )
}

/** Those with a code of their own; the others are wrong values. */
const RULE_CODES: Partial<Record<NewRuleRefusal, VpcCode>> = {
  GROUP_UNKNOWN: 'VPC.0202',
  RULE_EXISTS: 'VPC.0607',
  QUOTA_RULES: 'VPC.0114',
}

const REFUSALS = {
  QUOTA_GROUPS: ['VPC.0114', 'The quota of security groups is used up.'],
  QUOTA_RULES: ['VPC.0114', 'The quota of security group rules is used up.'],
  NAME_RESERVED: ['VPC.0602', undefined],
  GROUP_UNKNOWN: ['VPC.0202', undefined],
  GROUP_IS_DEFAULT: ['VPC.0605', undefined],
  GROUP_IN_USE: ['VPC.0606', undefined],
} as const satisfies Record<string, readonly [VpcCode, string | undefined]>

function groupRefusal(refusal: keyof typeof REFUSALS): Refusal {
  const [code, message] = REFUSALS[refusal]
  return refuse(code, message)
}
