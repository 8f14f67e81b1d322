import { Refusal } from '../http/refusal.ts'

/** The service's own error codes, as far as this server emits them, with the HTTP status of each. */
export const VPC_CODES = {
  'VPC.0007': [403, 'The project in the path is not the one you are authorised for.'],
  'VPC.0009': [401, 'The token is missing, wrong or expired.'],
  'VPC.0101': [400, 'The request is malformed, or a value is not acceptable.'],
  'VPC.0103': [403, 'Your role does not allow this operation.'],
  'VPC.0105': [409, 'The default VPC of a project is never deleted.'],
  'VPC.0106': [409, 'The VPC is in use: it has subnets, or servers or protection groups.'],
  'VPC.0107': [400, 'A subnet of the VPC would be outside of the new range.'],
  'VPC.0114': [409, 'The quota is used up.'],
  'VPC.0202': [404, 'There is no such resource.'],
  'VPC.0203': [409, 'The default subnet of a project is never deleted.'],
  'VPC.0204': [409, 'The subnet overlaps another one of its VPC.'],
  'VPC.0206': [400, 'A subnet of the project has this name already.'],
  'VPC.0208': [409, 'The subnet is in use: it has ports.'],
  'VPC.0404': [404, 'There is nothing at this address.'],
  'VPC.0405': [405, 'This method is not possible here.'],
  'VPC.0413': [413, 'The body is too large.'],
  'VPC.0429': [429, 'Too many requests.'],
  'VPC.0500': [500, 'Internal error. The log of the control plane has more under the request id.'],
  'VPC.0503': [503, 'A part of the service does not answer. Repeat the request.'],
  'VPC.0602': [409, 'The name `default` belongs to the security group that each project has.'],
  'VPC.0605': [409, 'The default security group of a project is never deleted.'],
  'VPC.0606': [409, 'The security group is in use: a port has it, or a rule refers to it.'],
  'VPC.0607': [409, 'The security group has such a rule already.'],
} as const satisfies Record<string, readonly [number, string]>

export type VpcCode = keyof typeof VPC_CODES

export function refuse(code: VpcCode, message?: string): Refusal {
  const [status, text] = VPC_CODES[code]
  return new Refusal(status, code, message ?? text)
}

/** Some clients read the top, others the member `error`. */
export const errorBody = ({ code, message }: Pick<Refusal, 'code' | 'message'>) => ({
  code,
  message,
  error: { code, message },
})
