import Type, { type Static } from 'typebox'
import type {
  NewRuleRefusal,
  NewRuleRequest,
} from '#control/operations/definitions/networks/security-group-requests.ts'
import { optional } from '../http/validation.ts'

/** A new rule as both network dialects take it. */
export const RuleBody = Type.Object({
  security_group_rule: Type.Object({
    security_group_id: Type.String(),
    direction: Type.String(),
    ethertype: optional(Type.String()),
    protocol: optional(Type.Union([Type.String(), Type.Integer()])),
    port_range_min: optional(Type.Integer()),
    port_range_max: optional(Type.Integer()),
    remote_ip_prefix: optional(Type.String()),
    remote_group_id: optional(Type.String()),
    description: optional(Type.String({ maxLength: 255 })),
  }),
})

export function ruleRequest(project: string, body: Static<typeof RuleBody>): NewRuleRequest {
  const rule = body.security_group_rule
  const protocol = String(rule.protocol ?? '').toLowerCase()
  return {
    project,
    group: rule.security_group_id,
    direction: rule.direction,
    ethertype: ETHERTYPES[(rule.ethertype ?? 'IPv4').toLowerCase()] ?? 'unknown',
    protocol: ANY.has(protocol) ? null : protocol,
    portMin: rule.port_range_min ?? null,
    portMax: rule.port_range_max ?? null,
    remotePrefix: textOrNull(rule.remote_ip_prefix),
    remoteGroup: textOrNull(rule.remote_group_id),
    description: rule.description ?? '',
  }
}

const ETHERTYPES: Readonly<Record<string, string>> = { ipv4: 'IPv4', ipv6: 'IPv6' }
const ANY = new Set(['', 'any'])

/** Clients send empty text for what they do not mean. */
const textOrNull = (text: string | null | undefined): string | null =>
  text === undefined || text === null || text === '' ? null : text

export const RULE_REFUSALS: Readonly<Record<NewRuleRefusal, string>> = {
  GROUP_UNKNOWN: 'The security group, or the remote one, does not exist.',
  DIRECTION: 'direction: ingress or egress.',
  ETHERTYPE: 'ethertype: IPv4 or IPv6.',
  PROTOCOL: 'protocol: a known name, or a number from 0 to 255.',
  PORTS:
    'port_range_min and port_range_max: both, 1 to 65535, the lower first, for a protocol with ports; type and code, 0 to 255, for ICMP.',
  REMOTE_PREFIX: 'remote_ip_prefix: an address or a network of the ethertype.',
  TWO_REMOTES: 'remote_ip_prefix and remote_group_id exclude each other.',
  RULE_EXISTS: 'The group has such a rule already.',
  QUOTA_RULES: 'The quota of security group rules is used up.',
}
