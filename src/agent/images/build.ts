import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { filesOfTar } from './archive.ts'
import { BOOT_BYTES, bootArea, DATA_BYTES, DISK_BYTES } from './boot-disk.ts'
import type { BuiltIn } from './built-in.ts'
import { initialFiles, MODULES } from './guest-files.ts'
import type { PackageFile } from './packages.ts'
import { runTool, toolOutput } from './tools.ts'

/* One image out of packages. The same packages and the same mke2fs give the same bytes: no times, no chance. */

const gzipAsync = promisify(gzip)

/** Seconds since 1970 that the file system believes to have been made at: 2020-01-01. */
const MADE_AT = '1577836800'

/** Named, because every system has defaults of its own. */
const FEATURES =
  'none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum'

/** Writes the image to a new file. Not durable yet. Throws an Error that says what is wrong with packages or tools. */
export async function buildImage(
  image: BuiltIn,
  packages: readonly PackageFile[],
  path: string,
  signal: AbortSignal,
): Promise<void> {
  const wanted = new Map<string, Buffer>()
  for (const one of packages) {
    const archive = toolOutput('dpkg-deb', ['--fsys-tarfile', one.path], { signal })
    for (const [file, bytes] of await filesOfTar(archive, isNeeded)) wanted.set(nameOf(file), bytes)
  }
  const need = (name: string): Buffer => {
    const bytes = wanted.get(name)
    if (bytes === undefined) throw new Error(`the packages hold no ${name}`)
    return bytes
  }
  const modules = new Map([...wanted].filter(([name]) => isModule(name)))
  if (!modules.has('virtio_blk.ko') && !modules.has('virtio_blk.ko.xz')) {
    throw new Error('the kernel package holds no virtio_blk module that can be read')
  }
  const boot = bootArea({
    mbr: need('isohdpfx.bin'),
    loader: need('isolinux.bin'),
    loaderCore: need('ldlinux.c32'),
    kernel: need('vmlinuz'),
    initialFiles: await gzipAsync(initialFiles(need('busybox'), modules), { level: 9 }),
    commandLine: `console=ttyS0 quiet panic=-1 job=${image.job}`,
    signature: createHash('sha256').update(image.name).digest().readUInt32LE(0),
  })
  const file = await open(path, 'wx', 0o600)
  try {
    await file.writeFile(boot)
    await file.truncate(DISK_BYTES)
  } finally {
    await file.close()
  }
  await makeFileSystem(image, path, signal)
}

async function makeFileSystem(image: BuiltIn, path: string, signal: AbortSignal): Promise<void> {
  const uuid = uuidOf(image.name)
  const extended = `offset=${BOOT_BYTES},hash_seed=${uuid},lazy_itable_init=0,root_owner=0:0`
  await runTool(
    'mke2fs',
    `-q -F -t ext4 -O ${FEATURES} -J size=4 -b 4096 -I 256 -L holdfast-data -U ${uuid} -E ${extended}`
      .split(' ')
      .concat(path, `${DATA_BYTES / 1024}k`),
    { signal, env: { E2FSPROGS_FAKE_TIME: MADE_AT, MKE2FS_CONFIG: '/dev/null' } },
  )
}

function uuidOf(text: string): string {
  const hex = createHash('sha256').update(`holdfast image ${text}`).digest('hex')
  const variant = '89ab'[Number.parseInt(hex.slice(16, 17), 16) & 3] ?? '8'
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

const isModule = (name: string): boolean =>
  MODULES.some((module) => name === `${module}.ko` || name === `${module}.ko.xz`)

/** Packages of later releases have their files below /usr, and busybox in another directory. */
function isNeeded(path: string): boolean {
  const name = path.slice(path.lastIndexOf('/') + 1)
  return (
    path.startsWith('boot/vmlinuz-') ||
    /(^|\/)bin\/busybox$/.test(path) ||
    /\/ISOLINUX\/(isohdpfx|isolinux)\.bin$/.test(path) ||
    path.endsWith('/modules/bios/ldlinux.c32') ||
    (path.includes('lib/modules/') && isModule(name))
  )
}

function nameOf(path: string): string {
  const name = path.slice(path.lastIndexOf('/') + 1)
  return name.startsWith('vmlinuz-') ? 'vmlinuz' : name
}
