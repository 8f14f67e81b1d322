import Type from 'typebox'
import { provideDefaults } from '#control/operations/definitions/networks/network-requests.ts'
import {
  changeSecurityGroup,
  deleteSecurityGroup,
  deleteSecurityGroupRule,
  type GroupWithRules,
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
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { optional } from '../http/validation.ts'
import { RULE_REFUSALS, RuleBody, ruleRequest } from '../network/rule-body.ts'
import { networkTime, ruleObject } from '../network/views.ts'
import type { NeutronServices } from './services.ts'
import { type NeutronType, refuse } from './errors.ts'
import { listOf } from './lists.ts'

const GroupPath = Type.Object({ security_group_id: Type.String() })
const RulePath = Type.Object({ rule_id: Type.String() })
const Text = Type.String({ maxLength: 255 })
const NewGroup = Type.Object({
  security_group: Type.Object({ name: Text, description: optional(Text) }),
})
const GroupChange = Type.Object({
  security_group: Type.Object({ name: optional(Text), description: optional(Text) }),
})

const groupObject = ({ group, rules }: GroupWithRules) => ({
  id: group.id,
  name: group.name,
  description: group.description,
  stateful: true,
  tenant_id: group.project,
  project_id: group.project,
  security_group_rules: rules.map(ruleObject),
  tags: [],
  created_at: networkTime(group.created_at),
  updated_at: networkTime(group.created_at),
})

export function securityGroupRoutes(app: Api, services: NeutronServices): void {
  const base = '/v2.0/security-groups'
  const { db } = services.store

  app.get(base, async (request) => {
    const project = projectOf(request)
    await provideDefaults(services, project)
    const rules = Map.groupBy(await listRules(db, project), (rule) => rule.security_group)
    const groups = (await listSecurityGroups(db, project)).map((group) =>
      groupObject({ group, rules: rules.get(group.id) ?? [] }),
    )
    return listOf(request, services, 'security_groups', groups)
  })

  app.get(`${base}/:security_group_id`, { schema: { params: GroupPath } }, async (request) => {
    const { security_group_id: id } = request.params
    const project = projectOf(request)
    await provideDefaults(services, project)
    const group = await findSecurityGroup(db, project, id)
    if (group === undefined) throw refuse('SecurityGroupNotFound')
    return { security_group: groupObject({ group, rules: await rulesOf(db, id) }) }
  })

  app.post(
    base,
    { schema: { body: NewGroup }, config: { audit: 'security-group.create' } },
    async (request, reply) => {
      const { name, description } = request.body.security_group
      const wanted = { project: projectOf(request), name, description: description ?? '' }
      const outcome = await requestSecurityGroup(services, wanted)
      if (!outcome.ok) throw refuse(GROUP_TYPES[outcome.refusal])
      auditTarget(request, outcome.group.id)
      void reply.code(201)
      return { security_group: groupObject(outcome) }
    },
  )

  app.put(
    `${base}/:security_group_id`,
    {
      schema: { params: GroupPath, body: GroupChange },
      config: { audit: 'security-group.update' },
    },
    async (request) => {
      const { security_group_id: id } = request.params
      auditTarget(request, id)
      const { name, description } = request.body.security_group
      const outcome = await changeSecurityGroup(services, projectOf(request), id, {
        ...(typeof name === 'string' ? { name } : {}),
        ...(typeof description === 'string' ? { description } : {}),
      })
      if (!outcome.ok) {
        const reserved = outcome.refusal === 'NAME_RESERVED'
        throw refuse(reserved ? 'InvalidInput' : 'SecurityGroupNotFound', RENAMING[outcome.refusal])
      }
      return { security_group: groupObject(outcome) }
    },
  )

  app.delete(
    `${base}/:security_group_id`,
    { schema: { params: GroupPath }, config: { audit: 'security-group.delete' } },
    async (request, reply) => {
      const { security_group_id: id } = request.params
      auditTarget(request, id)
      const outcome = await deleteSecurityGroup(services, projectOf(request), id)
      if (!outcome.ok) throw refuse(GROUP_TYPES[outcome.refusal])
      return await reply.code(204).send()
    },
  )

  ruleRoutes(app, services)
}

function ruleRoutes(app: Api, services: NeutronServices): void {
  const base = '/v2.0/security-group-rules'
  const { db } = services.store

  app.get(base, async (request) => {
    const project = projectOf(request)
    await provideDefaults(services, project)
    const rules = (await listRules(db, project)).map(ruleObject)
    return listOf(request, services, 'security_group_rules', rules)
  })

  app.get(`${base}/:rule_id`, { schema: { params: RulePath } }, async (request) => {
    const project = projectOf(request)
    await provideDefaults(services, project)
    const row = await findRule(db, project, request.params.rule_id)
    if (row === undefined) throw refuse('SecurityGroupRuleNotFound')
    return { security_group_rule: ruleObject(row) }
  })

  app.post(
    base,
    { schema: { body: RuleBody }, config: { audit: 'security-group-rule.create' } },
    async (request, reply) => {
      const outcome = await requestRule(services, ruleRequest(projectOf(request), request.body))
      if (!outcome.ok) {
        const { refusal } = outcome
        throw refuse(RULE_TYPES[refusal] ?? 'InvalidInput', RULE_REFUSALS[refusal])
      }
      auditTarget(request, outcome.rule.id)
      void reply.code(201)
      return { security_group_rule: ruleObject(outcome.rule) }
    },
  )

  app.delete(
    `${base}/:rule_id`,
    { schema: { params: RulePath }, config: { audit: 'security-group-rule.delete' } },
    async (request, reply) => {
      const { rule_id: id } = request.params
      auditTarget(request, id)
      const outcome = await deleteSecurityGroupRule(services, projectOf(request), id)
      if (!outcome.ok) throw refuse('SecurityGroupRuleNotFound')
      return await reply.code(204).send()
    },
  )
}

const RENAMING = {
  GROUP_UNKNOWN: undefined,
  NAME_RESERVED: 'name: `default` is the name of the default security group, for good.',
} as const

const GROUP_TYPES = {
  QUOTA_GROUPS: 'OverQuota',
  QUOTA_RULES: 'OverQuota',
  NAME_RESERVED: 'SecurityGroupDefaultAlreadyExists',
  GROUP_UNKNOWN: 'SecurityGroupNotFound',
  GROUP_IS_DEFAULT: 'SecurityGroupCannotRemoveDefault',
  GROUP_IN_USE: 'SecurityGroupInUse',
} as const satisfies Record<string, NeutronType>

/** Those with a type of their own; the others are wrong values. */
const RULE_TYPES: Partial<Record<NewRuleRefusal, NeutronType>> = {
  GROUP_UNKNOWN: 'SecurityGroupNotFound',
  RULE_EXISTS: 'SecurityGroupRuleExists',
  QUOTA_RULES: 'OverQuota',
}
