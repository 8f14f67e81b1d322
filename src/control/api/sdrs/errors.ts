import { Refusal } from '../http/refusal.ts'

/**
 * The service's own error codes, as far as this server emits them, with the HTTP status published for each.
 * docs/compatibility/sdrs.md lists those that can never occur here, with the reason.
 */
export const SDRS_CODES = {
  'SDRS.0001': [403, 'The project in the path is not the one you are authorised for.'],
  'SDRS.0002': [401, 'The token is missing, wrong or expired.'],
  'SDRS.0005': [403, 'Your role does not allow this operation.'],
  'SDRS.0008': [503, 'A part of the service does not answer. Repeat the request.'],
  'SDRS.0009': [501, 'This operation is not offered by this server.'],
  'SDRS.0013': [500, 'Internal error. The log of the control plane has more under the request id.'],
  'SDRS.0201': [400, 'The request body or a parameter is wrong.'],
  'SDRS.0202': [400, 'name: 1 to 64 bytes of letters, digits, dot, underscore and hyphen.'],
  'SDRS.0203': [400, 'The availability zone is unknown, or not a side of the domain.'],
  'SDRS.0204': [400, 'The VPC is unknown.'],
  'SDRS.0205': [400, 'The active-active domain is unknown.'],
  'SDRS.0206': [400, 'The body must hold exactly one known action with an object as its value.'],
  'SDRS.0207': [400, 'The protection group id is wrong.'],
  'SDRS.0208': [400, 'The protected instance id is wrong.'],
  'SDRS.0209': [400, 'status: unknown value.'],
  'SDRS.0210': [400, 'The server id is wrong.'],
  'SDRS.0211': [400, 'The disk id is wrong.'],
  'SDRS.0212': [400, 'description: at most 64 bytes, without < and >.'],
  'SDRS.0213': [400, 'The replication pair id is wrong.'],
  'SDRS.0216': [400, 'priority_station must name the site that is not production now.'],
  'SDRS.0219': [400, 'The address is not one of the subnet.'],
  'SDRS.0221': [400, 'limit: a whole number from 0 to 1000.'],
  'SDRS.0222': [400, 'offset: a whole number from 0 on.'],
  'SDRS.0223': [400, 'The NIC id is wrong.'],
  'SDRS.0226': [400, 'A list filter takes at most 30 ids.'],
  'SDRS.0305': [400, 'The quota of protection groups is used up.'],
  'SDRS.0306': [400, 'The quota of replication pairs is used up.'],
  'SDRS.1001': [400, 'The group still has protected instances.'],
  'SDRS.1002': [400, 'The state of the group does not allow this.'],
  'SDRS.1003': [400, 'The group still has disaster recovery drills.'],
  'SDRS.1010': [400, 'The group still has replication pairs.'],
  'SDRS.1013': [404, 'There is no such protection group.'],
  'SDRS.1024': [400, 'The group is neither available nor protected.'],
  'SDRS.1301': [400, 'The state of the protected instance does not allow its deletion.'],
  'SDRS.1303': [400, 'The server is not in the production availability zone of the group.'],
  'SDRS.1304': [400, 'The server has no NIC in the VPC of the group.'],
  'SDRS.1305': [400, 'The server is protected already.'],
  'SDRS.1310': [400, 'The protected instance has no such NIC.'],
  'SDRS.1311': [400, 'The primary NIC cannot be deleted.'],
  'SDRS.1312': [400, 'No NIC could be made for the server of the disaster recovery site.'],
  'SDRS.1314': [400, 'A server of the protected instance is gone.'],
  'SDRS.1316': [400, 'The server is not stopped.'],
  'SDRS.1319': [400, 'A production server is not stopped. Shut it down and repeat.'],
  'SDRS.1320': [404, 'There is no such protected instance.'],
  'SDRS.1321': [400, 'The server has no disk.'],
  'SDRS.1324': [400, 'The state of the group does not allow deleting its protected instances.'],
  'SDRS.1326': [400, 'There is no such server.'],
  'SDRS.1327': [400, 'The state of the protected instance does not allow changing its NICs.'],
  'SDRS.1328': [400, 'The state of the protected instance does not allow this.'],
  'SDRS.1330': [400, 'The roles are reversed: this server is production now.'],
  'SDRS.1333': [400, 'The server is neither active nor shut off.'],
  'SDRS.1334': [400, 'The address is taken.'],
  'SDRS.1335': [400, 'There is no such subnet in the VPC of the group.'],
  'SDRS.1339': [400, 'The server has no system disk.'],
  'SDRS.1340': [400, 'The server has as many NICs as it can have.'],
  'SDRS.1341': [400, 'The server has this flavor already.'],
  'SDRS.1342': [400, 'A server at the disaster recovery site is not stopped.'],
  'SDRS.1353': [
    400,
    'The flavor for the disaster recovery site is unknown, or too small for the image.',
  ],
  'SDRS.1356': [400, 'The flavor for the production site is unknown, or too small for the image.'],
  'SDRS.1358': [400, 'The group holds as many protected instances as it can.'],
  'SDRS.1601': [400, 'The state of the replication pair does not allow this.'],
  'SDRS.1603': [400, 'The replication pair is attached already, or the device is taken.'],
  'SDRS.1604': [400, 'The replication pair is not attached to this instance.'],
  'SDRS.1605': [400, 'The replication pair is attached.'],
  'SDRS.1608': [404, 'There is no such replication pair.'],
  'SDRS.1611': [400, 'The replication pair is not in this group.'],
  'SDRS.1801': [400, 'The disk is not available.'],
  'SDRS.1803': [400, 'There is no such disk.'],
  'SDRS.1806': [400, 'A shared disk cannot be protected together with a server.'],
  'SDRS.1809': [400, 'The roles are reversed: this disk is production now.'],
  'SDRS.1810': [400, 'The disk is not in the production availability zone of the group.'],
  'SDRS.1811': [400, 'The disk is in a replication pair already.'],
  'SDRS.1823': [
    400,
    'Nothing is heard from the production site. Repeat in a few seconds; if it stays silent, fail over.',
  ],
  'SDRS.1824': [400, 'The replication link is down while production works. Repair the link.'],
  'SDRS.1825': [400, 'The disk belongs to a drill and is never replicated.'],
  'SDRS.1830': [400, 'Pairs of the group are still being synchronised.'],
  'SDRS.1900': [400, 'The drill id is wrong.'],
  'SDRS.1901': [400, 'The drill id is missing.'],
  'SDRS.1902': [404, 'There is no such drill.'],
  'SDRS.1907': [
    400,
    'The drill VPC is that of the group. Name another one, or none: then one is made.',
  ],
  'SDRS.1908': [400, 'The drill VPC has no subnet.'],
  'SDRS.1909': [
    400,
    'The drill VPC has no subnet with the range of a protected server. Make one with the same CIDR.',
  ],
  'SDRS.1910': [400, 'An address of a protected server is taken in the drill VPC.'],
  'SDRS.1911': [400, 'A protected server has no NIC in the VPC of the group.'],
  'SDRS.1913': [400, 'The state of the drill does not allow its deletion.'],
  'SDRS.1921': [400, 'The drill VPC is used by another drill. Delete that one first.'],
  'SDRS.1922': [400, 'The drill cannot be made.'],
  'SDRS.1928': [400, 'There is no such VPC.'],
  'SDRS.1929': [400, 'The quota of VPCs is used up. Name an existing VPC, or delete one.'],
  'SDRS.1930': [400, 'The quota of subnets is used up. Name an existing VPC, or delete subnets.'],
  'SDRS.2201': [400, 'action: create or delete.'],
  'SDRS.2202': [400, 'The list of tags is empty.'],
  'SDRS.2203': [400, 'Too many tags: at most 20 per instance, 10 when it is created.'],
  'SDRS.2204': [400, 'key: 1 to 127 characters without blanks at its ends.'],
  'SDRS.2205': [400, 'key: must not be empty.'],
  'SDRS.2206': [404, 'There is no tag with this key.'],
  'SDRS.2207': [
    400,
    'value: at most 255 characters without blanks at its ends; not only an asterisk.',
  ],
  'SDRS.2208': [400, 'value: must be given.'],
  'SDRS.2209': [400, 'A key is given twice.'],
  'SDRS.2210': [400, 'action: filter or count.'],
  'SDRS.2211': [400, 'limit and offset have no meaning for a count.'],
  'SDRS.2212': [400, 'matches: must not be empty.'],
  'SDRS.2213': [400, 'matches: a key must not be empty.'],
  'SDRS.2214': [400, 'matches: the only key is resource_name.'],
  'SDRS.2215': [400, 'matches: a key is given twice.'],
  'SDRS.2216': [400, 'matches: a value must be given.'],
  'SDRS.2217': [400, 'matches: a value has at most 255 characters.'],
  'SDRS.2218': [400, 'At most 20 values for one key.'],
  'SDRS.2219': [400, 'A value is given twice for one key.'],
  'SDRS.2220': [400, 'limit: a whole number from 1 to 1000.'],
  'SDRS.2221': [400, 'The state of the protected instance does not allow adding tags.'],
  'SDRS.2222': [400, 'The state of the protected instance does not allow removing tags.'],
} as const satisfies Record<string, readonly [number, string]>

export type SdrsCode = keyof typeof SDRS_CODES

/** Codes of resources that a path names and that do not exist. */
const ABSENT: ReadonlySet<SdrsCode> = new Set(['SDRS.1013', 'SDRS.1320', 'SDRS.1608', 'SDRS.1902'])

export interface ErrorOptions {
  /**
   * HTTP status for an absent resource named in the path. 404 is what most clients recognise; 400 is what the
   * documents publish. The code in the body is the same.
   */
  readonly absentStatus: 404 | 400
}

/** Makes the dialect's refusals. */
export function sdrsErrors({ absentStatus }: ErrorOptions) {
  return (code: SdrsCode, message?: string): Refusal => {
    const [status, text] = SDRS_CODES[code]
    return new Refusal(ABSENT.has(code) ? absentStatus : status, code, message ?? text)
  }
}
export type RefuseWith = ReturnType<typeof sdrsErrors>

/** A resource that does not exist, named in the body: always 400. */
export const absentInBody = (code: SdrsCode): Refusal => new Refusal(400, code, SDRS_CODES[code][1])

/** The envelope that every client reads, and the copies at the top that one provider looks for. */
export const errorBody = ({ code, message }: Pick<Refusal, 'code' | 'message'>) => ({
  error: { message, code },
  error_code: code,
  error_msg: message,
})
