import { Refusal } from '../http/refusal.ts'

/**
 * The service's own error codes, as far as this server emits them, with the HTTP status published for each.
 * docs/compatibility/sdrs.md lists those that can never occur here, with the reason.
 */
export const SDRS_CODES = {
  'SDRS.0001': [
    403,
    'The project in the path is not the one you are authorised for. Log in for that project.',
  ],
  'SDRS.0002': [401, 'The token is missing, wrong or expired. Log in again.'],
  'SDRS.0005': [
    403,
    'Your role does not allow this operation. An administrator of the domain can give you another one.',
  ],
  'SDRS.0008': [503, 'A part of the service does not answer. Repeat the request.'],
  'SDRS.0013': [500, 'Internal error. The log of the control plane has more under the request id.'],
  'SDRS.0201': [400, 'The request body or a parameter is wrong.'],
  'SDRS.0202': [
    400,
    'The name must have 1 to 64 bytes of letters, digits, dots, underscores and hyphens.',
  ],
  'SDRS.0203': [
    400,
    'The availability zone is unknown, or not a side of the domain. List the active domains to see both sides.',
  ],
  'SDRS.0204': [400, 'The VPC is unknown. List the VPCs of the project to see their ids.'],
  'SDRS.0205': [
    400,
    'The active-active domain is unknown. List the active domains to see their ids.',
  ],
  'SDRS.0206': [400, 'The body must hold exactly one known action with an object as its value.'],
  'SDRS.0207': [400, 'The protection group id is wrong: it is a UUID.'],
  'SDRS.0208': [400, 'The protected instance id is wrong: it is a UUID.'],
  'SDRS.0209': [400, 'The status is none that such a resource can have.'],
  'SDRS.0210': [400, 'The server id is wrong: it is a UUID.'],
  'SDRS.0211': [400, 'The disk id is wrong: it is a UUID.'],
  'SDRS.0212': [400, 'The description may have 64 bytes, and neither < nor >.'],
  'SDRS.0213': [400, 'The replication pair id is wrong: it is a UUID.'],
  'SDRS.0216': [400, 'The priority_station must name the site that is not production now.'],
  'SDRS.0219': [400, 'The address is not one of the subnet. Name one of its range, or none.'],
  'SDRS.0221': [400, 'The limit must be a whole number from 0 to 1000.'],
  'SDRS.0222': [400, 'The offset must be a whole number from 0 on.'],
  'SDRS.0223': [400, 'The NIC id is wrong: it is a UUID.'],
  'SDRS.0226': [400, 'A list filter takes at most 30 ids. Ask in several requests.'],
  'SDRS.0305': [
    400,
    'The quota of protection groups is used up. Delete some, or have an administrator raise it.',
  ],
  'SDRS.0306': [
    400,
    'The quota of replication pairs is used up. Delete some, or have an administrator raise it.',
  ],
  'SDRS.0404': [500, 'Too many operations wait already. Repeat when some have ended.'],
  'SDRS.1001': [400, 'The group still has protected instances. Delete them first.'],
  'SDRS.1002': [
    400,
    'The state of the group does not allow this. Look at its status; what is under way ends by itself.',
  ],
  'SDRS.1003': [400, 'The group still has disaster recovery drills. Delete them first.'],
  'SDRS.1010': [400, 'The group still has replication pairs. Delete them first.'],
  'SDRS.1013': [404, 'There is no such protection group.'],
  'SDRS.1024': [
    400,
    'The group is neither available nor protected. Wait for what is under way, or end it first.',
  ],
  'SDRS.1301': [
    400,
    'The state of the protected instance does not allow its deletion. Wait for what is under way.',
  ],
  'SDRS.1303': [
    400,
    'The server is not in the production availability zone of the group. Choose one there, or another group.',
  ],
  'SDRS.1304': [
    400,
    'The server has no NIC in the VPC of the group. Choose a server or a group of one VPC.',
  ],
  'SDRS.1305': [400, 'The server is protected already.'],
  'SDRS.1310': [400, 'The protected instance has no such NIC.'],
  'SDRS.1311': [400, 'The primary NIC cannot be deleted.'],
  'SDRS.1312': [
    400,
    'No NIC could be made for the server of the disaster recovery site. The quota of ports or the subnet is used up.',
  ],
  'SDRS.1314': [
    400,
    'A server of the protected instance is gone. Delete the instance, and make it again.',
  ],
  'SDRS.1316': [400, 'The server is not stopped. Stop it and repeat.'],
  'SDRS.1319': [400, 'A production server is not stopped. Shut it down and repeat.'],
  'SDRS.1320': [404, 'There is no such protected instance.'],
  'SDRS.1321': [400, 'The server has no disk. Attach one first.'],
  'SDRS.1324': [
    400,
    'The state of the group does not allow deleting its protected instances. Wait for what is under way.',
  ],
  'SDRS.1326': [400, 'There is no such server.'],
  'SDRS.1327': [
    400,
    'The state of the protected instance does not allow changing its NICs. Wait for what is under way.',
  ],
  'SDRS.1328': [
    400,
    'The state of the protected instance does not allow this. Wait for what is under way.',
  ],
  'SDRS.1330': [
    400,
    'The roles are reversed: this server is production now. Switch back first, or leave the server out.',
  ],
  'SDRS.1333': [400, 'The server is neither active nor shut off. Wait for what is under way.'],
  'SDRS.1334': [400, 'The address is taken. Name another one, or none.'],
  'SDRS.1335': [400, 'There is no such subnet in the VPC of the group.'],
  'SDRS.1339': [400, 'The server has no system disk. Attach the disk that it boots from first.'],
  'SDRS.1340': [400, 'The server has as many NICs as it can have. Delete one first.'],
  'SDRS.1341': [400, 'The server has this flavor already.'],
  'SDRS.1342': [
    400,
    'A server at the disaster recovery site is not stopped. Shut it down and repeat.',
  ],
  'SDRS.1353': [
    400,
    'The flavor for the disaster recovery site is unknown, or too small for the image.',
  ],
  'SDRS.1356': [400, 'The flavor for the production site is unknown, or too small for the image.'],
  'SDRS.1358': [400, 'The group holds as many protected instances as it can. Make another group.'],
  'SDRS.1601': [
    400,
    'The state of the replication pair does not allow this. Wait for what is under way.',
  ],
  'SDRS.1603': [
    400,
    'The replication pair is attached already, or the device is taken. Name another device.',
  ],
  'SDRS.1604': [400, 'The replication pair is not attached to this instance.'],
  'SDRS.1605': [400, 'The replication pair is attached. Detach it first.'],
  'SDRS.1608': [404, 'There is no such replication pair.'],
  'SDRS.1611': [400, 'The replication pair is not in this group.'],
  'SDRS.1801': [400, 'The disk is not available. Detach it, or wait for what is under way.'],
  'SDRS.1803': [400, 'There is no such disk.'],
  'SDRS.1806': [
    400,
    'A shared disk cannot be protected together with a server. Make a pair of it, and attach that.',
  ],
  'SDRS.1809': [
    400,
    'The roles are reversed: this disk is production now. Switch back first, or leave the disk out.',
  ],
  'SDRS.1810': [
    400,
    'The disk is not in the production availability zone of the group. Choose one there, or another group.',
  ],
  'SDRS.1811': [400, 'The disk is in a replication pair already.'],
  'SDRS.1817': [
    400,
    'A disk of the pair is neither available nor in use. Wait for what is under way.',
  ],
  'SDRS.1823': [
    400,
    'Nothing is heard from the production site. Repeat in a few seconds; if it stays silent, fail over.',
  ],
  'SDRS.1824': [400, 'The replication link is down while production works. Repair the link.'],
  'SDRS.1825': [400, 'The disk belongs to a drill and is never replicated. Choose another disk.'],
  'SDRS.1830': [
    400,
    'Pairs of the group are still being synchronised. Wait until their progress is 100.',
  ],
  'SDRS.1900': [400, 'The drill id is wrong: it is a UUID.'],
  'SDRS.1901': [400, 'The drill id is missing.'],
  'SDRS.1902': [404, 'There is no such drill.'],
  'SDRS.1907': [
    400,
    'The drill VPC is that of the group. Name another one, or none: then one is made.',
  ],
  'SDRS.1908': [400, 'The drill VPC has no subnet. Make one in it, or name another VPC.'],
  'SDRS.1909': [
    400,
    'The drill VPC has no subnet with the range of a protected server. Make one with the same CIDR.',
  ],
  'SDRS.1910': [
    400,
    'An address of a protected server is taken in the drill VPC. Free it, or name another VPC.',
  ],
  'SDRS.1911': [400, 'A protected server has no NIC in the VPC of the group. Give it one first.'],
  'SDRS.1913': [
    400,
    'The state of the drill does not allow its deletion. Wait for what is under way.',
  ],
  'SDRS.1921': [400, 'The drill VPC is used by another drill. Delete that one first.'],
  'SDRS.1922': [400, 'The drill cannot be made.'],
  'SDRS.1928': [400, 'There is no such VPC. List the VPCs of the project to see their ids.'],
  'SDRS.1929': [400, 'The quota of VPCs is used up. Name an existing VPC, or delete one.'],
  'SDRS.1930': [400, 'The quota of subnets is used up. Name an existing VPC, or delete subnets.'],
  'SDRS.2201': [400, 'The action must be create or delete.'],
  'SDRS.2202': [400, 'The list of tags is empty.'],
  'SDRS.2203': [
    400,
    'There are too many tags: an instance may have 20, and 10 when it is created.',
  ],
  'SDRS.2204': [400, 'A key must have 1 to 127 characters without blanks at its ends.'],
  'SDRS.2205': [400, 'A key must not be empty.'],
  'SDRS.2206': [404, 'There is no tag with this key.'],
  'SDRS.2207': [
    400,
    'A value may have 255 characters without blanks at its ends, and must not be only an asterisk.',
  ],
  'SDRS.2208': [400, 'A value must be given.'],
  'SDRS.2209': [400, 'A key is given twice.'],
  'SDRS.2210': [400, 'The action must be filter or count.'],
  'SDRS.2211': [400, 'A limit and an offset have no meaning for a count.'],
  'SDRS.2212': [400, 'The list of matches must not be empty.'],
  'SDRS.2213': [400, 'A key of matches must not be empty.'],
  'SDRS.2214': [400, 'The only key of matches is resource_name.'],
  'SDRS.2215': [400, 'A key of matches is given twice.'],
  'SDRS.2216': [400, 'A value of matches must be given.'],
  'SDRS.2217': [400, 'A value of matches may have 255 characters.'],
  'SDRS.2218': [400, 'A key may have 20 values.'],
  'SDRS.2219': [400, 'A value is given twice for one key.'],
  'SDRS.2220': [400, 'The limit must be a whole number from 1 to 1000.'],
  'SDRS.2221': [
    400,
    'The state of the protected instance does not allow adding tags. Wait until it is made.',
  ],
  'SDRS.2222': [
    400,
    'The state of the protected instance does not allow removing tags. Wait until it is made.',
  ],
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
