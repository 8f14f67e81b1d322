/** The published error codes of the volume API, and those that are never answered, with the reason. */
import type { Never } from './codes.ts'

export const PUBLISHED = [
  ...'0001 0002 0003 1001 1002 1003 1004 1005 1006 1007 1008 1009 1010 1011 1012 1013 1014 1015 1016 1018 1020'.split(
    ' ',
  ),
  ...'1021 1022 1023 1024 1025 1027 1031 1032 1033 1034 1036 1039 1040 1041 1042 1043 1044 1045 1046 1047 1048'.split(
    ' ',
  ),
  ...'1049 1051 1052 1053 1054 1057 1058 1061 1062 1063 1064 1065 1066 1070 2001 2002 2005 2007 2010 2011 2013'.split(
    ' ',
  ),
  ...'2014 2019 2020 2021 2023 2024 2025 2026 2029 2030 2031 2032 2033 2034 2035 2036 2040 2041 2042 2043 2044'.split(
    ' ',
  ),
  ...'2045 2046 2047 2050 2052 2053 2054 2055 2056 2068 2070 2071 2072 2078 2083 2084 2085 2087 2089 2093 2094'.split(
    ' ',
  ),
  ...'2096 2105 2108 2130 2131 2134 2142 2143 2144 2145 5400 5401 5403 5404 5413 5500 5503'.split(
    ' ',
  ),
]
  .map((number) => `EVS.${number}`)
  .concat('Common.0011', 'Common.0013', 'Common.0018')

const BODY = 'what cannot be read has `EVS.1008`, `EVS.1009`, `EVS.1018` or `EVS.5400`'
const BACKUP = 'disks are not made from backups here'
const KEYS = 'there is no key service: encryption is refused with `EVS.2041`'
const QUOTAS = 'quotas are rows of the same database'
const FORMS = 'belongs to a request that the contract does not have'
export const NEVER: readonly Never[] = [
  { code: 'EVS.0002', why: 'a bad token is always 401, `EVS.5401`' },
  { code: 'EVS.0003', why: 'a token without a role in the project is not issued' },
  { code: 'EVS.1012', why: 'there are no temporary disks' },
  { code: 'EVS.1013', why: BODY },
  { code: 'EVS.1014', why: 'every disk can be extended' },
  { code: 'EVS.1022', why: BACKUP },
  { code: 'EVS.1023', why: 'a limit is refused with `EVS.2142` or `EVS.5400`' },
  { code: 'EVS.1031', why: 'an unknown status matches nothing' },
  { code: 'EVS.1032', why: 'ids are refused with `EVS.1002`, `EVS.1024` or `EVS.5404`' },
  { code: 'EVS.1033', why: QUOTAS },
  { code: 'EVS.1044', why: BACKUP },
  { code: 'EVS.1045', why: BACKUP },
  { code: 'EVS.1049', why: BACKUP },
  { code: 'EVS.1051', why: BACKUP },
  { code: 'EVS.1052', why: BODY },
  { code: 'EVS.1053', why: FORMS },
  { code: 'EVS.1058', why: 'a metadata filter is refused with `EVS.1025`' },
  { code: 'EVS.1064', why: 'the state of a disk that is extended is refused with `EVS.1048`' },
  { code: 'EVS.1070', why: BODY },
  {
    code: 'EVS.2001',
    why: 'an operation is stored with its request or the request is refused, `EVS.5503`',
  },
  { code: 'EVS.2002', why: 'is `EVS.5500`' },
  { code: 'EVS.2005', why: 'is `EVS.5503`' },
  { code: 'EVS.2007', why: 'metadata is a row of the same database' },
  { code: 'EVS.2010', why: 'no token is exchanged' },
  { code: 'EVS.2011', why: 'there are no orders' },
  { code: 'EVS.2013', why: 'roles are rows of the same database' },
  { code: 'EVS.2014', why: 'roles are rows of the same database' },
  { code: 'EVS.2019', why: 'snapshots have no jobs here; the snapshot says error_deleting' },
  { code: 'EVS.2021', why: 'a disk that is given back ends in-use when that fails' },
  {
    code: 'EVS.2023',
    why: 'a site that does not answer is asked again; the job ends with the code of its kind',
  },
  { code: 'EVS.2025', why: BACKUP },
  { code: 'EVS.2029', why: 'children are kept with their parents' },
  { code: 'EVS.2030', why: 'children are kept with their parents' },
  { code: 'EVS.2031', why: 'children are kept with their parents' },
  { code: 'EVS.2032', why: QUOTAS },
  { code: 'EVS.2033', why: QUOTAS },
  { code: 'EVS.2034', why: 'tokens are opaque' },
  { code: 'EVS.2035', why: 'tokens are opaque' },
  { code: 'EVS.2036', why: 'tokens are opaque' },
  { code: 'EVS.2040', why: KEYS },
  { code: 'EVS.2042', why: KEYS },
  { code: 'EVS.2044', why: KEYS },
  { code: 'EVS.2052', why: 'there are no orders' },
  { code: 'EVS.2053', why: 'is `EVS.1036`' },
  { code: 'EVS.2055', why: KEYS },
  { code: 'EVS.2056', why: 'what a role does not allow is `EVS.1027`' },
  { code: 'EVS.2068', why: 'disks are not locked: operations on one disk wait for each other' },
  { code: 'EVS.2071', why: 'every type is offered in every zone' },
  { code: 'EVS.2072', why: 'nothing is sold out: a site without space fails the job' },
  { code: 'EVS.2078', why: FORMS },
  { code: 'EVS.2083', why: FORMS },
  { code: 'EVS.2084', why: FORMS },
  { code: 'EVS.2085', why: FORMS },
  { code: 'EVS.2093', why: 'every disk is of this service' },
  { code: 'EVS.2094', why: 'a shared disk may be bootable' },
  { code: 'EVS.2096', why: 'a disk from a snapshot may have any type' },
  { code: 'EVS.2105', why: KEYS },
  { code: 'EVS.2108', why: BODY },
  { code: 'EVS.2130', why: BACKUP },
  { code: 'EVS.2131', why: 'servers are rows of the same database' },
  { code: 'EVS.2134', why: 'disks of servers are attached by the server API, with its codes' },
  { code: 'EVS.2143', why: KEYS },
  { code: 'EVS.2144', why: 'accounts are not billed: a disabled user is `EVS.5401`' },
  { code: 'EVS.2145', why: 'accounts are not billed: a disabled user is `EVS.5401`' },
  {
    code: 'EVS.5403',
    why: 'what a role does not allow is `EVS.1027`, protected metadata `EVS.2047`',
  },
  {
    code: 'Common.0013',
    why: 'a bad token is always 401, in the form of the service that the path belongs to',
  },
  {
    code: 'Common.0018',
    why: 'jobs are one store: another project in the path is refused by the service that the path belongs to',
  },
]
