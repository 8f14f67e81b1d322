import {
  type Address,
  envName,
  flagName,
  formatAddress,
  type Option,
  type OptionTable,
} from '#base/config.ts'

/** docs/operating/configuration.md, made from the tables that the processes themselves read. */
export function optionsPage(
  parts: readonly {
    readonly command: string
    readonly about: string
    readonly options: OptionTable
  }[],
): string {
  return `# Configuration

\`holdfast control\` and \`holdfast agent\` take the options below; \`holdfast up\` and \`holdfast init\` write such configurations.
This page is written by \`npm run docs\` from the tables in \`src/control/config.ts\` and \`src/agent/config.ts\`.

* Sources, later ones win: default, configuration file (\`--config FILE\`, JSON), environment, flag.
* The name of an option gives the others: \`peerSilenceMs\` is \`HOLDFAST_PEER_SILENCE_MS\` and \`--peer-silence-ms\`. A dot nests in the file:
  \`pki.ca\` is \`{"pki": {"ca": ...}}\`, \`HOLDFAST_PKI_CA\` and \`--pki-ca\`.
* A path in the file is relative to the file, elsewhere to the working directory.
* A wrong value anywhere, even one that a stronger source hides, stops the start and names the option, where it stands and what is accepted. So
  does an option that does not exist. All that is wrong is listed at once.
* Under \`holdfast up\`, options that it does not set itself (timing, limits, log level) can be given in its environment and reach every part.
${parts.map(partSection).join('')}`
}

function partSection({
  command,
  about,
  options,
}: {
  readonly command: string
  readonly about: string
  readonly options: OptionTable
}): string {
  return `
## ${command}

${about}

| Option | Unit | Default | Accepted | Meaning |
|---|---|---|---|---|
${Object.entries(options)
  .map(([key, option]) => row(key, option))
  .join('\n')}
`
}

function row(key: string, option: Option<unknown>): string {
  const names = `\`${key}\`<br>\`${envName(key)}\`<br>\`${flagName(key)}\``
  const cells = [names, option.unit ?? '', defaultOf(option), option.accepts, option.about]
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

function defaultOf(option: Option<unknown>): string {
  if (option.defaultText !== undefined) return option.defaultText
  if (option.default === undefined) return option.optional === true ? 'none' : '**required**'
  return `\`${isAddress(option.default) ? formatAddress(option.default) : plain(option.default)}\``
}

/** Text as it is, everything else as in JSON. */
const plain = (value: unknown): string =>
  typeof value === 'string' ? value : JSON.stringify(value)

const isAddress = (value: unknown): value is Address =>
  typeof value === 'object' && value !== null && 'host' in value && 'port' in value
