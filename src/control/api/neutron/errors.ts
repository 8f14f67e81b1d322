import { Refusal } from '../http/refusal.ts'

/** Types of this service's errors, as far as this server emits them, with the HTTP status of each. */
export const NEUTRON_TYPES = {
  Unauthorized: [401, 'The token is missing, wrong or expired.'],
  Forbidden: [403, 'Your role does not allow this operation.'],
  ForeignProject: [403, 'The project is not the one you are authorised for.'],
  HTTPBadRequest: [400, 'The request is malformed.'],
  InvalidInput: [400, 'A value is not acceptable.'],
  RequestTooLarge: [413, 'The body is too large.'],
  HTTPNotFound: [404, 'There is nothing at this address.'],
  MethodNotAllowed: [405, 'This method is not possible here.'],
  TooManyRequests: [429, 'Too many requests.'],
  ServiceUnavailable: [503, 'A part of the service does not answer. Repeat the request.'],
  InternalError: [500, 'Internal error. The control plane logged more under the request id.'],
  NetworkNotFound: [404, 'The network does not exist.'],
  SubnetNotFound: [404, 'The subnet does not exist.'],
  PortNotFound: [404, 'The port does not exist.'],
  SecurityGroupNotFound: [404, 'The security group does not exist.'],
  SecurityGroupRuleNotFound: [404, 'The security group rule does not exist.'],
  ResourceNotFound: [404, 'There is no such resource.'],
  PortInUse: [409, 'A server wears the port, or it belongs to one.'],
  IpAddressAlreadyAllocated: [409, 'Another port of the subnet, or its gateway, has the address.'],
  IpAddressGenerationFailure: [409, 'The subnet has no free address.'],
  SecurityGroupInUse: [409, 'The security group is in use: a port has it, or a rule refers to it.'],
  SecurityGroupCannotRemoveDefault: [
    409,
    'The default security group of a project is never deleted.',
  ],
  SecurityGroupDefaultAlreadyExists: [
    409,
    'The name `default` belongs to the security group that each project has.',
  ],
  SecurityGroupRuleExists: [409, 'The security group has such a rule already.'],
  OverQuota: [409, 'The quota is used up.'],
} as const satisfies Record<string, readonly [number, string]>

export type NeutronType = keyof typeof NEUTRON_TYPES

export function refuse(type: NeutronType, message?: string): Refusal {
  const [status, text] = NEUTRON_TYPES[type]
  return new Refusal(status, type, message ?? text)
}

export const errorBody = ({ code, message }: Pick<Refusal, 'code' | 'message'>) => ({
  NeutronError: { type: code, message, detail: '' },
})
