import { resolve } from 'node:path'
import {
  type Address,
  addressOption,
  booleanOption,
  choiceOption,
  integerOption,
  isWildcard,
  NAME,
  NAME_ACCEPTS,
  OPTION_REFUSED,
  type OptionValues,
  optional,
  originOption,
  pathOption,
  textOption,
} from '#base/config.ts'
import { Fault } from '#base/fault.ts'

/* The options of `holdfast agent`, the data plane of one site. */

const KIB = 1024
const MIB = 1024 * KIB
const GIB = 1024 * MIB

export const agentOptions = {
  region: textOption({
    about: 'Region this agent belongs to, the same as its control plane.',
    accepts: NAME_ACCEPTS,
    pattern: NAME,
  }),
  site: textOption({
    about: 'Site, that is the availability zone of the API.',
    accepts: NAME_ACCEPTS,
    pattern: NAME,
  }),
  agentId: textOption({
    about: 'Name of this agent, unique within the region and stable over restarts.',
    accepts: NAME_ACCEPTS,
    pattern: NAME,
  }),
  dataDir: pathOption({
    about:
      'Directory of the volumes, bitmaps and epoch files. Must lie on a file system that keeps what fdatasync promised.',
  }),
  bootDir: optional(
    pathOption({
      about:
        "Directory in memory (tmpfs) for what must live exactly as long as the boot of the host: failure marks that a volume's own disk does not take.",
      defaultText: '/run/holdfast-UID, else /dev/shm/holdfast-UID',
    }),
  ),
  controlUrl: originOption({
    about: "The control plane's internal port (mutual TLS).",
    schemes: ['https'],
  }),
  commandListen: addressOption({
    about: 'Where the agent takes commands from the control plane (mutual TLS).',
    default: { host: '0.0.0.0', port: 7412 },
  }),
  linkListen: addressOption({
    about: 'Where the agent takes replication links from peers.',
    default: { host: '0.0.0.0', port: 7413 },
  }),
  heartbeatListen: optional(
    addressOption({
      about:
        'Where the agent takes heartbeats from peers, which tell a busy agent from a dead one. Peers learn the port over the link; name one when a firewall is between the sites.',
      defaultText: 'the host of linkListen, any free port',
    }),
  ),
  nbdListen: optional(
    addressOption({
      about: 'Where the agent exports volumes over TCP. Left out: unix socket only.',
    }),
  ),
  nbdTls: booleanOption({
    about:
      'TLS with client certificates on the TCP export. false is the explicit opt-out, for trusted networks only.',
    default: true,
  }),
  nbdSocket: optional(
    pathOption({
      about: 'Unix socket of the NBD exports, at most 107 bytes.',
      defaultText: 'nbd.sock in dataDir',
    }),
  ),
  nbdMemoryBytes: integerOption({
    about:
      'Memory for the requests of all NBD clients that are not answered yet. At the limit sockets are not read until there is room. Besides it each connection with requests may take one buffer of 8 MiB.',
    unit: 'bytes',
    default: GIB,
    min: 128 * MIB,
    max: 1024 * GIB,
  }),
  advertiseHost: optional(
    textOption({
      about:
        'Host name or address under which the control plane, peers and NBD clients reach this agent.',
      accepts: 'a host name, IPv4 or IPv6 address',
      pattern: /^[A-Za-z0-9.:-]{1,253}$/,
      defaultText:
        'the host of commandListen; required when that is a wildcard address such as 0.0.0.0',
    }),
  ),
  'pki.ca': pathOption({ about: 'Certificate of the authority that all parts trust (PEM).' }),
  'pki.cert': pathOption({ about: "This agent's certificate (PEM)." }),
  'pki.key': pathOption({ about: "This agent's private key (PEM, mode 0600)." }),
  linkTls: booleanOption({
    about:
      'Encrypt the replication link. false is meant for trusted networks; sessions still authenticate each other by a keyed handshake. Both sites must agree.',
    default: true,
  }),
  linkKeyFile: optional(
    pathOption({
      about:
        'File of at least 32 random bytes that all agents share; proves membership on a link without TLS. Required when linkTls is false.',
    }),
  ),
  logLevel: choiceOption({
    about: 'Least severity written to the log.',
    choices: ['trace', 'debug', 'info', 'warn', 'error', 'fatal'],
    default: 'info',
  }),
  peerSilenceMs: integerOption({
    about:
      "Longest silence of a peer before a group's acknowledgements are held and the witness is asked. Keep it below leaseMs.",
    unit: 'ms',
    default: 4_000,
    min: 200,
    max: 60_000,
  }),
  heartbeatMs: integerOption({
    about: 'Interval of heartbeats to each peer. Keep it at a quarter of peerSilenceMs or less.',
    unit: 'ms',
    default: 500,
    min: 50,
    max: 10_000,
  }),
  busyMaxMs: integerOption({
    about:
      "Longest silence of a link whose peer's heartbeats still arrive while its disk holds it up. Until then the link is kept and the writer holds. Below peerSilenceMs: heartbeats excuse nothing.",
    unit: 'ms',
    default: 30_000,
    min: 0,
    max: 600_000,
  }),
  leaseMs: integerOption({
    about:
      'How long a side that writes without its peer may go on after asking the witness. The same on the control plane.',
    unit: 'ms',
    default: 8_000,
    min: 500,
    max: 120_000,
  }),
  renewMs: integerOption({
    about: 'Interval of lease renewals. Keep it at a third of leaseMs or less.',
    unit: 'ms',
    default: 2_000,
    min: 100,
    max: 40_000,
  }),
  reportMs: integerOption({
    about: "Interval of the agent's reports to the control plane.",
    unit: 'ms',
    default: 1_000,
    min: 100,
    max: 60_000,
  }),
  witnessTimeoutMs: integerOption({
    about: 'How long one question to the witness may take before it counts as unreachable.',
    unit: 'ms',
    default: 1_500,
    min: 100,
    max: 60_000,
  }),
  syncRateBytes: integerOption({
    about: 'Limit of initial copies and resyncs of one group. 0: no limit.',
    unit: 'bytes/s',
    default: 0,
    min: 0,
    max: 100 * GIB,
  }),
  soloDelayMs: integerOption({
    about:
      'From the loss of the link to the question whether this site may go on alone. Long enough for an agent that is started again to be back.',
    unit: 'ms',
    default: 1_000,
    min: 0,
    max: 600_000,
  }),
  frameLogBytes: integerOption({
    about:
      'Bytes of writes a site that goes on alone keeps for the other one, which then catches up in order. One byte more, and only a resync of the changed blocks helps.',
    unit: 'bytes',
    default: 64 * MIB,
    min: MIB,
    max: 16 * GIB,
  }),
  'vault.place': optional(
    textOption({
      about:
        'Vault of the region, where its backups are kept: a directory (absolute), or s3://BUCKET/PREFIX with the access key in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. All agents of a region have the same one; it is made when it is not there. Left out: no backups.',
      accepts: 'an absolute path or s3://BUCKET/PREFIX',
      pattern: /^(?:\/|s3:\/\/)[^\0]{1,4096}$/,
    }),
  ),
  'vault.keyFile': optional(
    pathOption({
      about:
        'File of at least 32 random bytes that opens the vault, the same for all agents of a region. Without it nobody reads the backups: keep a copy elsewhere. Required with vault.place.',
    }),
  ),
  replicaListen: optional(
    addressOption({
      about:
        'Where the agent takes replicas of backups from other regions (TLS, and a ticket for each replica). Left out: it takes none.',
    }),
  ),
  imageDir: optional(
    pathOption({
      about:
        'Directory of the images that volumes begin as: the built-in ones, made there at first use out of Debian packages (downloaded, not installed), and raw disks of your own as NAME.raw. Agents of one host may share it.',
      defaultText: 'images in dataDir',
    }),
  ),
  computeDriver: choiceOption({
    about:
      'What runs the servers of this site. auto: qemu when its program is there, else none. See docs/operating/servers.md.',
    choices: ['auto', 'qemu', 'libvirt', 'hooks', 'none'],
    default: 'auto',
  }),
  qemuProgram: textOption({
    about: 'QEMU for guests: a path, or a name that is looked for in PATH.',
    accepts: 'a path or a name',
    pattern: /^[^\0]{1,4096}$/,
    default: 'qemu-system-x86_64',
  }),
  qemuAccelerator: choiceOption({
    about:
      'auto: KVM when a guest boots under it within five seconds (tried once per boot of the host), else tcg, which needs nothing and is slower.',
    choices: ['auto', 'kvm', 'tcg'],
    default: 'auto',
  }),
  libvirtUri: textOption({
    about: 'The libvirt that runs the guests of the driver libvirt. It must be on this host.',
    accepts: 'a connection URI of libvirt',
    pattern: /^[^\s\0]{1,1024}$/,
    default: 'qemu:///system',
  }),
  libvirtNetwork: optional(
    textOption({
      about:
        'Network of libvirt that the NICs of guests are plugged into. Left out: into none. Addresses and isolation are that network’s business.',
      accepts: 'a name',
      pattern: /^[A-Za-z0-9_.-]{1,64}$/,
    }),
  ),
  hooksProgram: optional(
    pathOption({
      about:
        'Your own program that runs guests, for the driver hooks. See docs/operating/compute-hooks.md.',
    }),
  ),
  hooksLimitMs: integerOption({
    about: 'Longest call of hooksProgram that starts, stops or changes a guest.',
    unit: 'ms',
    default: 120_000,
    min: 1_000,
    max: 3_600_000,
  }),
  guestMemoryMb: optional(
    integerOption({
      about:
        'Memory that the guests of this agent may have together. A start beyond it is refused (NO_MEMORY).',
      unit: 'MiB',
      min: 0,
      max: 16 * MIB,
      defaultText: "a quarter of the host's memory",
    }),
  ),
  guestNice: integerOption({
    about:
      'Nice value of guests. Above that of the agent (0), so that guests do not keep it from answering their disks.',
    default: 2,
    min: 0,
    max: 19,
  }),
  guestsAtStop: choiceOption({
    about:
      'When the agent is stopped. leave: guests go on and wait for their disks, which a restart of the agent needs. power_down: they are asked to power off, and are started at the next start of the agent.',
    choices: ['leave', 'power_down'],
    default: 'leave',
  }),
  guestGraceMs: integerOption({
    about: 'How long guests have to power off when the agent is stopped; then they are ended.',
    unit: 'ms',
    default: 10_000,
    min: 0,
    max: 600_000,
  }),
  runDir: optional(
    pathOption({
      about: 'Directory of the pid files of guests.',
      defaultText: 'run in dataDir',
    }),
  ),
  guestPrefix: optional(
    textOption({
      about:
        'Pid files of guests are PREFIX-guest-SERVER.pid. Agents with one runDir need several.',
      accepts: NAME_ACCEPTS,
      pattern: NAME,
      defaultText: 'the site',
    }),
  ),
  holdBytes: integerOption({
    about:
      'Bytes of unacknowledged writes a group keeps while its acknowledgements are held; beyond it, clients wait.',
    unit: 'bytes',
    default: 64 * MIB,
    min: MIB,
    max: 16 * GIB,
  }),
} as const

export interface PkiFiles {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** The checked configuration of one agent. Paths are absolute, durations milliseconds. */
export interface AgentConfig {
  readonly region: string
  readonly site: string
  readonly agentId: string
  readonly dataDir: string
  /** undefined: the usual places. */
  readonly bootDir: string | undefined
  /** Origin of the control plane's internal port, e.g. https://127.0.0.1:7411 */
  readonly controlUrl: string
  readonly commandListen: Address
  readonly linkListen: Address
  readonly heartbeatListen: Address
  readonly nbdListen: Address | undefined
  readonly nbdTls: boolean
  readonly nbdSocket: string
  readonly nbdMemoryBytes: number
  readonly advertiseHost: string
  readonly pki: PkiFiles
  readonly linkTls: boolean
  /** Defined when `linkTls` is false. */
  readonly linkKeyFile: string | undefined
  readonly logLevel: string
  readonly peerSilenceMs: number
  readonly heartbeatMs: number
  readonly busyMaxMs: number
  readonly leaseMs: number
  readonly renewMs: number
  readonly reportMs: number
  readonly witnessTimeoutMs: number
  readonly syncRateBytes: number
  readonly soloDelayMs: number
  readonly frameLogBytes: number
  readonly holdBytes: number
  /** undefined: this agent has no vault. */
  readonly vault: { readonly place: string; readonly keyFile: string } | undefined
  readonly replicaListen: Address | undefined
  readonly imageDir: string
  readonly computeDriver: string
  readonly qemuProgram: string
  readonly qemuAccelerator: string
  readonly libvirtUri: string
  readonly libvirtNetwork: string | undefined
  /** Defined when `computeDriver` is hooks. */
  readonly hooksProgram: string | undefined
  readonly hooksLimitMs: number
  /** undefined: a quarter of the host's memory. */
  readonly guestMemoryMb: number | undefined
  readonly guestNice: number
  readonly guestsAtStop: string
  readonly guestGraceMs: number
  readonly runDir: string
  readonly guestPrefix: string
}

/** Longest path a unix socket can have on Linux (sun_path without its ending zero). */
const SOCKET_PATH_BYTES_MAX = 107

/** Resolves paths and derived defaults and checks what concerns several options; refuses with OPTION_REFUSED. */
export function agentConfig(values: OptionValues<typeof agentOptions>): AgentConfig {
  const problems: string[] = []
  const dataDir = resolve(values.dataDir)
  const nbdSocket = resolve(values.nbdSocket ?? `${dataDir}/nbd.sock`)
  if (Buffer.byteLength(nbdSocket) > SOCKET_PATH_BYTES_MAX) {
    problems.push(
      `nbdSocket: ${nbdSocket} is ${Buffer.byteLength(nbdSocket)} bytes long, accepted: at most ${SOCKET_PATH_BYTES_MAX}`,
    )
  }
  const advertiseHost = values.advertiseHost ?? values.commandListen.host
  if (isWildcard(advertiseHost)) {
    problems.push(
      `advertiseHost: required, because commandListen is the wildcard address ${values.commandListen.host}; accepted: the name or address under which others reach this agent`,
    )
  }
  if (values.peerSilenceMs >= values.leaseMs) {
    problems.push(
      `peerSilenceMs: ${values.peerSilenceMs} is not below leaseMs ${values.leaseMs}, accepted: a smaller value`,
    )
  }
  if (values.heartbeatMs * 3 > values.peerSilenceMs) {
    problems.push(
      `heartbeatMs: ${values.heartbeatMs} is above a third of peerSilenceMs ${values.peerSilenceMs}, accepted: a smaller value`,
    )
  }
  if (values.renewMs * 2 > values.leaseMs) {
    problems.push(
      `renewMs: ${values.renewMs} is above half of leaseMs ${values.leaseMs}, accepted: a smaller value`,
    )
  }
  if (!values.linkTls && values.linkKeyFile === undefined) {
    problems.push('linkKeyFile: required because linkTls is false, accepted: a path')
  }
  if (values.computeDriver === 'hooks' && values.hooksProgram === undefined) {
    problems.push('hooksProgram: required because computeDriver is hooks, accepted: a path')
  }
  const place = values['vault.place']
  const keyFile = values['vault.keyFile']
  if (place !== undefined && keyFile === undefined) {
    problems.push('vault.keyFile: required because vault.place is given, accepted: a path')
  }
  if (problems.length > 0) throw new Fault(OPTION_REFUSED, problems.join('; '), { problems })

  const {
    'pki.ca': ca,
    'pki.cert': cert,
    'pki.key': key,
    'vault.place': _place,
    'vault.keyFile': _keyFile,
    ...plain
  } = values
  return {
    ...plain,
    dataDir,
    bootDir: values.bootDir === undefined ? undefined : resolve(values.bootDir),
    nbdSocket,
    vault:
      place === undefined || keyFile === undefined
        ? undefined
        : {
            place,
            keyFile: resolve(keyFile),
          },
    imageDir: resolve(values.imageDir ?? `${dataDir}/images`),
    hooksProgram: values.hooksProgram === undefined ? undefined : resolve(values.hooksProgram),
    runDir: resolve(values.runDir ?? `${dataDir}/run`),
    guestPrefix: values.guestPrefix ?? values.site,
    advertiseHost,
    heartbeatListen: values.heartbeatListen ?? { ...values.linkListen, port: 0 },
    linkKeyFile: values.linkKeyFile === undefined ? undefined : resolve(values.linkKeyFile),
    pki: { ca: resolve(ca), cert: resolve(cert), key: resolve(key) },
  }
}
