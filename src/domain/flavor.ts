/** What a server has of CPUs and memory. The list is fixed; a flavor's name is also its id. */
export interface Flavor {
  readonly name: string
  readonly vcpus: number
  readonly memoryMb: number
}

const flavor = (name: string, vcpus: number, memoryMb: number): Flavor => ({
  name,
  vcpus,
  memoryMb,
})

/**
 * Smallest first. `t2.*` are for tiny guests. The `s` and `c` names are those that existing automation of this API asks for: a
 * number after the last dot says how many times 1024 MiB there are for each CPU.
 */
export const FLAVORS: readonly Flavor[] = [
  flavor('t2.nano', 1, 128),
  flavor('t2.micro', 1, 256),
  flavor('t2.small', 1, 512),
  flavor('s2.medium.1', 1, 1_024),
  flavor('s3.medium.1', 1, 1_024),
  flavor('s6.medium.2', 1, 2_048),
  flavor('s2.medium.2', 1, 2_048),
  flavor('s3.medium.2', 1, 2_048),
  flavor('s2.medium.4', 1, 4_096),
  flavor('s3.medium.4', 1, 4_096),
  flavor('s3.large.1', 2, 2_048),
  flavor('s2.large.2', 2, 4_096),
  flavor('s3.large.2', 2, 4_096),
  flavor('s6.large.2', 2, 4_096),
  flavor('c3.large.2', 2, 4_096),
  flavor('s3.large.4', 2, 8_192),
  flavor('c3.large.4', 2, 8_192),
  flavor('s3.xlarge.1', 4, 4_096),
  flavor('s2.xlarge.2', 4, 8_192),
  flavor('s3.xlarge.2', 4, 8_192),
  flavor('s6.xlarge.2', 4, 8_192),
  flavor('s3.xlarge.4', 4, 16_384),
  flavor('s3.2xlarge.2', 8, 16_384),
  flavor('s3.2xlarge.4', 8, 32_768),
  flavor('s3.4xlarge.2', 16, 32_768),
  flavor('s3.4xlarge.4', 16, 65_536),
]

const byName = new Map(FLAVORS.map((one) => [one.name, one]))

export const findFlavor = (name: string): Flavor | undefined => byName.get(name)
