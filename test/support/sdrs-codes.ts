/**
 * The published table of error codes, and why some of them never come from this server. docs/compatibility/sdrs.md says the same; a test compares.
 */

/** HTTP status by code, without the prefix `SDRS.`; as published. Codes of the same line share it. */
const TABLE: readonly (readonly [number, string])[] = [
  [
    400,
    '0001 0002 0003 0004 0005 0201 0202 0203 0204 0205 0206 0207 0208 0209 0210 0211 0212 0213',
  ],
  [400, '0214 0215 0216 0217 0219 0221 0222 0223 0224 0225 0226 0301 0302 0303 0304'],
  [
    500,
    '0006 0007 0008 0009 0010 0011 0012 0013 0014 0015 0016 0401 0402 0403 0404 0405 0406 0407',
  ],
  [500, '0408'],
  [
    400,
    '1001 1002 1003 1010 1013 1015 1017 1018 1019 1020 1021 1022 1023 1024 1025 1026 1027 1028',
  ],
  [400, '1029 1030 1032 0305'],
  [500, '1011 1014 1016'],
  [
    400,
    '1301 1303 1304 1305 1306 1307 1308 1309 1310 1311 1312 1313 1314 1315 1316 1317 1318 1319',
  ],
  [
    400,
    '1320 1321 1322 1323 1324 1325 1326 1327 1328 1329 1330 1331 1332 1333 1334 1335 1336 1337',
  ],
  [400, '1338 1339 1340 1341 1342 1350 1351 1352 1353 1355 1356 1357 1358 1359'],
  [
    400,
    '1601 1603 1604 1605 1606 1607 1608 1609 1610 1611 1801 1802 1803 1804 1805 1806 1807 1808',
  ],
  [
    400,
    '1809 1810 1811 1812 1813 1814 1816 1817 1818 0306 1820 1821 1822 1823 1824 1825 1826 1828',
  ],
  [400, '1830 1831 1832'],
  [
    400,
    '1900 1901 1902 1907 1908 1909 1910 1911 1913 1921 1922 1923 1924 1925 1926 1927 1928 1929',
  ],
  [400, '1930'],
  [500, '1904 1905 1906 1912 1914 1915 1916 1917 1918 1919 1920'],
  [
    400,
    '2201 2202 2203 2204 2205 2207 2208 2209 2210 2211 2212 2213 2214 2215 2216 2217 2218 2219',
  ],
  [400, '2220 2221 2222'],
  [404, '2206'],
]

export const PUBLISHED: ReadonlyMap<string, number> = new Map(
  TABLE.flatMap(([status, codes]) => codes.split(' ').map((code) => [code, status] as const)),
)

/** Answered with another status than the published one, and why. */
export const OTHER_STATUS: ReadonlyMap<string, readonly [number, string]> = new Map([
  ['0001', [403, 'clients log in anew at 401, and at nothing else']],
  ['0002', [401, 'clients log in anew at 401, and at nothing else']],
  ['0005', [403, 'clients log in anew at 401, and at nothing else']],
  ['0008', [503, 'a request that may be repeated']],
  ['1013', [404, 'absent, when named in the path; option `sdrsAbsentStatus`']],
  ['1320', [404, 'absent, when named in the path; option `sdrsAbsentStatus`']],
  ['1608', [404, 'absent, when named in the path; option `sdrsAbsentStatus`']],
  ['1902', [404, 'absent, when named in the path; option `sdrsAbsentStatus`']],
])

/** Codes that this server never answers with. */
export const NEVER: readonly (readonly [codes: string, reason: string])[] = [
  ['0003 0004', 'a role either allows an operation or `SDRS.0005` says that it does not'],
  ['0006 0007 0014 0015 0016', 'there is no foreign identity or privilege service'],
  ['0009 0010 0011 0012', 'every operation is offered; what fails inside is `SDRS.0013`'],
  ['0214', '`SDRS.0209` is the code of every status filter'],
  ['0215 0217 0224', 'no request has such a field'],
  ['0225 1802 1831 1832', 'no disk is frozen, encrypted or locked'],
  ['0301 0302 0303 0304', 'quotas are set by an administrator outside this API'],
  [
    '0401 0402 0403 0405 0407 0408',
    'children of jobs are made with their parent, and resumed with it; a job that failed has the code of what it did',
  ],
  [
    '1011',
    'domains are read from the same database as everything else: `SDRS.0008` or `SDRS.0013`',
  ],
  ['1017 1018 1019 1020 1021 1022 1023', 'older forms of `SDRS.1002`'],
  ['1025 1026', 'instances and pairs have no station of their own'],
  ['1306 1307 1308 1317 1318', 'the job of the whole carries its own code'],
  ['1309 1814', 'the disks of a pair grow together, and a growth that failed is repeated'],
  ['1315 1336 1337', 'there are no extension NICs'],
  ['1322', 'a system disk is a disk like others'],
  ['1323 1325', 'older forms of `SDRS.1024`'],
  ['1331 1332 1338 1355 1828', 'there are no public addresses, and no frozen accounts'],
  ['1352', '`SDRS.1319` says the same'],
  ['1357 1359', 'nobody locks servers'],
  ['1609', '`SDRS.1606` says the same'],
  ['1610', 'a pair is renamed in the request, and `SDRS.0202` or `SDRS.1608` say why not'],
  ['1804', '`SDRS.1604` says the same'],
  ['1805', 'no request names a disk that should be in a pair'],
  ['1807 1808', '`SDRS.1821` and `SDRS.1822` say the same'],
  [
    '1812 1813',
    'disks are made and deleted by jobs of pairs and instances, which have their own codes',
  ],
  ['1816 1818', 'whether servers use the disks of a pair does not matter for its growth'],
  ['1826', 'pairs without an instance are the normal case, and the quota bounds them'],
  [
    '1904 1912 1914 1915 1916 1917 1918 1919 1920',
    'a drill keeps its own records, and its jobs have their own codes',
  ],
  ['1924', 'a VPC has its subnets at both sites'],
  [
    '1925 1926 1927',
    'networks of a drill are made in the request: quotas are all that can refuse them',
  ],
]

/** The section of the page, as it has to stand there. */
export const neverAsPage = (): string =>
  NEVER.map(
    ([codes, reason]) =>
      `| ${codes
        .split(' ')
        .map((code) => `\`${code}\``)
        .join(' ')} | ${reason} |`,
  ).join('\n')

/** The section about those that do come: by the status that they are answered with. */
export function occurringAsPage(): string {
  const never = new Set(NEVER.flatMap(([codes]) => codes.split(' ')))
  const come = [...PUBLISHED].filter(([code]) => !never.has(code))
  const byStatus = Map.groupBy(come, ([code, status]) => OTHER_STATUS.get(code)?.[0] ?? status)
  return [...byStatus]
    .toSorted(([a], [b]) => a - b)
    .map(([status, codes]) => `| ${status} | ${codes.map(([code]) => `\`${code}\``).join(' ')} |`)
    .join('\n')
}

/** Codes whose status is not the published one. */
export const otherStatusAsPage = (): string =>
  [...OTHER_STATUS]
    .map(
      ([code, [status, reason]]) =>
        `| \`${code}\` | ${PUBLISHED.get(code)} | ${status} | ${reason} |`,
    )
    .join('\n')
