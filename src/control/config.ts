import { resolve } from 'node:path'
import {
  type Address,
  addressOption,
  booleanOption,
  choiceOption,
  integerOption,
  isLoopback,
  isWildcard,
  NAME,
  NAME_ACCEPTS,
  listOption,
  OPTION_REFUSED,
  type OptionValues,
  optional,
  originOption,
  pathOption,
  textOption,
} from '#base/config.ts'
import { Fault } from '#base/fault.ts'

/* The options of `holdfast control`, the control plane of one region. */

export const controlOptions = {
  region: textOption({
    about: 'Region this control plane serves, as it appears in the service catalogue.',
    accepts: NAME_ACCEPTS,
    pattern: NAME,
  }),
  sites: listOption({
    about: 'Sites (availability zones) of the region.',
    item: NAME_ACCEPTS,
    pattern: NAME,
  }),
  dataDir: pathOption({ about: 'Directory of everything this process keeps.' }),
  listen: addressOption({
    about: 'Where the public API listens.',
    default: { host: '127.0.0.1', port: 7410 },
  }),
  publicUrl: optional(
    originOption({
      about: 'The address clients use, as it stands in the service catalogue.',
      schemes: ['http', 'https'],
      defaultText: 'made from listen; required when that is a wildcard address such as 0.0.0.0',
    }),
  ),
  internalListen: addressOption({
    about: 'Where agents reach the witness and send reports (mutual TLS).',
    default: { host: '0.0.0.0', port: 7411 },
  }),
  database: optional(
    textOption({
      about: 'Where the state is kept. PostgreSQL must have a synchronous standby or none.',
      accepts: 'sqlite:PATH or postgres://user@host:port/name',
      pattern: /^(?:sqlite:.+|postgres(?:ql)?:\/\/.+)$/,
      defaultText: 'sqlite:state.db in dataDir',
      secret: true,
    }),
  ),
  databasePasswordFile: optional(
    pathOption({ about: 'File holding the PostgreSQL password, so that it stands in no URL.' }),
  ),
  'pki.ca': pathOption({ about: 'Certificate of the authority that all parts trust (PEM).' }),
  'pki.cert': pathOption({ about: "The control plane's certificate for agents (PEM)." }),
  'pki.key': pathOption({ about: "The control plane's private key for agents (PEM, mode 0600)." }),
  'pki.caKey': optional(
    pathOption({
      about:
        "The authority's private key (PEM, mode 0600), used to issue NBD client certificates on request. Left out: none are issued.",
    }),
  ),
  'tls.cert': optional(pathOption({ about: 'Certificate chain of the public API (PEM).' })),
  'tls.key': optional(pathOption({ about: 'Private key of the public API (PEM, mode 0600).' })),
  allowPlaintext: booleanOption({
    about:
      'Serve the public API without TLS on an address other than loopback, for instance behind a proxy that ends TLS.',
    default: false,
  }),
  bootstrapFile: optional(
    pathOption({
      about:
        'JSON file with the first administrator (domain, user, password, project, access key). Read only while the database holds no user.',
    }),
  ),
  tokenLifetimeMs: integerOption({
    about: 'Lifetime of a token.',
    unit: 'ms',
    default: 24 * 3_600_000,
    min: 60_000,
    max: 30 * 24 * 3_600_000,
  }),
  leaseMs: integerOption({
    about:
      'How long a side that writes without its peer may go on after asking the witness. The same on the agents.',
    unit: 'ms',
    default: 8_000,
    min: 500,
    max: 120_000,
  }),
  leaseDriftMs: integerOption({
    about: 'Added to every lease by the witness to cover clocks that run apart.',
    unit: 'ms',
    default: 500,
    min: 0,
    max: 60_000,
  }),
  agentSilenceMs: integerOption({
    about: 'How long an agent may stay silent before its site is shown as unreachable.',
    unit: 'ms',
    default: 4_000,
    min: 500,
    max: 120_000,
  }),
  recoveryScripts: optional(
    pathOption({
      about:
        'Directory with a directory for each project, by its id, of the executables that the recovery plans of the project may name. All of it must belong to root or to the user of the control plane, and nobody else may be able to change them. Left out: no plan runs a script.',
    }),
  ),
  regions: optional(
    listOption({
      about:
        'Other regions that backups can be copied to: name, and a JSON file with url, domain, user and password for it, as `holdfast up` writes it.',
      item: 'NAME=FILE',
      pattern: /^[a-zA-Z0-9._-]{1,255}=.+$/,
    }),
  ),
  sdrsAbsentStatus: choiceOption({
    about:
      'HTTP status of SDRS for a resource in the path that does not exist. 404 is what most clients understand, 400 what is published.',
    choices: ['404', '400'],
    default: '404',
  }),
  logLevel: choiceOption({
    about: 'Least severity written to the log.',
    choices: ['trace', 'debug', 'info', 'warn', 'error', 'fatal'],
    default: 'info',
  }),
} as const

export interface ControlPki {
  readonly ca: string
  readonly cert: string
  readonly key: string
  /** undefined: this control plane issues no NBD client certificates. */
  readonly caKey: string | undefined
}

/** The checked configuration of one control plane. Paths are absolute, durations milliseconds. */
export interface ControlConfig {
  readonly region: string
  readonly sites: readonly string[]
  readonly dataDir: string
  readonly listen: Address
  /** Origin without a trailing slash. Undefined: made from `listen` once the port is known. */
  readonly publicUrl: string | undefined
  readonly internalListen: Address
  readonly database: { readonly kind: 'sqlite'; readonly path: string } | PostgresSpec
  readonly pki: ControlPki
  /** Undefined: plain HTTP, which the configuration allowed (loopback, or `allowPlaintext`). */
  readonly tls: { readonly cert: string; readonly key: string } | undefined
  readonly allowPlaintext: boolean
  readonly bootstrapFile: string | undefined
  readonly tokenLifetimeMs: number
  readonly leaseMs: number
  readonly leaseDriftMs: number
  readonly agentSilenceMs: number
  /** Undefined: recovery plans run no scripts. */
  readonly recoveryScripts: string | undefined
  /** Other regions and the files of credentials for them. */
  readonly regions: readonly { readonly name: string; readonly file: string }[]
  readonly sdrsAbsentStatus: 404 | 400
  readonly logLevel: string
}

export interface PostgresSpec {
  readonly kind: 'postgres'
  readonly url: string
  readonly passwordFile: string | undefined
}

/** Content of `bootstrapFile`: the first administrator, created when the database holds no user at all. */
export interface Bootstrap {
  readonly domain: string
  readonly user: string
  readonly password: string
  /** 32 hex characters. */
  readonly project_id: string
  readonly project_name: string
  readonly access_key: string
  readonly secret_key: string
}

/** Resolves paths and derived defaults and checks what concerns several options; refuses with OPTION_REFUSED. */
export function controlConfig(values: OptionValues<typeof controlOptions>): ControlConfig {
  const problems: string[] = []
  const { 'tls.cert': tlsCert, 'tls.key': tlsKey } = values
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    const missing = tlsCert === undefined ? 'tls.cert' : 'tls.key'
    problems.push(`${missing}: required when the other half of the pair is given, accepted: a path`)
  }
  const encrypted = tlsCert !== undefined
  if (!encrypted && !values.allowPlaintext && !isLoopback(values.listen.host)) {
    problems.push(
      `listen: ${values.listen.host} is not loopback and the API would be served without TLS, accepted: a loopback address, or tls.cert and tls.key, or allowPlaintext=true`,
    )
  }
  if (values.publicUrl === undefined && isWildcard(values.listen.host)) {
    problems.push(
      `publicUrl: required, because listen is the wildcard address ${values.listen.host}; accepted: the origin that clients use`,
    )
  }
  if (problems.length > 0) throw new Fault(OPTION_REFUSED, problems.join('; '), { problems })

  const dataDir = resolve(values.dataDir)
  const absolute = (path: string | undefined) => (path === undefined ? undefined : resolve(path))
  return {
    region: values.region,
    sites: values.sites,
    dataDir,
    listen: values.listen,
    publicUrl: values.publicUrl,
    internalListen: values.internalListen,
    database: databaseSpec(values.database, absolute(values.databasePasswordFile), dataDir),
    pki: {
      ca: resolve(values['pki.ca']),
      cert: resolve(values['pki.cert']),
      key: resolve(values['pki.key']),
      caKey: absolute(values['pki.caKey']),
    },
    tls:
      tlsCert === undefined || tlsKey === undefined
        ? undefined
        : { cert: resolve(tlsCert), key: resolve(tlsKey) },
    allowPlaintext: values.allowPlaintext,
    bootstrapFile: absolute(values.bootstrapFile),
    tokenLifetimeMs: values.tokenLifetimeMs,
    leaseMs: values.leaseMs,
    leaseDriftMs: values.leaseDriftMs,
    agentSilenceMs: values.agentSilenceMs,
    recoveryScripts: absolute(values.recoveryScripts),
    regions: (values.regions ?? []).map(regionPlace),
    sdrsAbsentStatus: values.sdrsAbsentStatus === '400' ? 400 : 404,
    logLevel: values.logLevel,
  }
}

const regionPlace = (text: string): ControlConfig['regions'][number] => {
  const at = text.indexOf('=')
  return { name: text.slice(0, at), file: resolve(text.slice(at + 1)) }
}

function databaseSpec(
  text: string | undefined,
  passwordFile: string | undefined,
  dataDir: string,
): ControlConfig['database'] {
  if (text === undefined) return { kind: 'sqlite', path: resolve(dataDir, 'state.db') }
  return text.startsWith('sqlite:')
    ? { kind: 'sqlite', path: resolve(text.slice('sqlite:'.length)) }
    : { kind: 'postgres', url: text, passwordFile }
}
