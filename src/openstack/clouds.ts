// SPDX-License-Identifier: Apache-2.0
import { type Cloud, CloudConfigError } from './cloud.ts'
import { type CloudFiles, type ConfigFile, candidates, type Raw, readFirst, type Tried } from './cloudfiles.ts'
import { isObject } from './json.ts'
import { cloudFromRaw } from './rawcloud.ts'

export type { CloudFiles } from './cloudfiles.ts'

export type LoadOptions = CloudFiles & {
  /** Instead of `OS_REGION_NAME` and of the first region of the file. */
  readonly region?: string | undefined
}

/** The name under which the OpenStack clients present what `OS_USERNAME` and its like describe. */
const environmentCloud = 'envvars'

/**
 * Reads a cloud as OpenStack's clients do: `clouds.yaml`, `secure.yaml` over it, a profile of `clouds-public.yaml` below it.
 *
 * @param name the cloud; undefined: `OS_CLOUD`, then the environment's own (`OS_USERNAME` ...), then the only one of the file
 * @throws {CloudConfigError} with the files that were tried and the clouds that were found
 */
export async function loadCloud(name?: string | undefined, options: LoadOptions = {}): Promise<Cloud> {
  const env = options.env ?? process.env
  const files = await readFiles(options)
  const fromEnvironment = environmentRaw(env)
  const chosen = name ?? (env['OS_CLOUD'] || undefined) ?? defaultName(files, fromEnvironment, env)
  if (chosen === undefined) throw noChoice(files)

  const isEnvironment = chosen === environmentName(env) && !Object.hasOwn(files.clouds, chosen)
  const own = isEnvironment ? fromEnvironment : Object.hasOwn(files.clouds, chosen) && files.clouds[chosen]
  if (!isObject(own)) throw unknownCloud(chosen, files)

  const warnings = overlooked(files, env)
  const profile = await readProfile(chosen, own, options, warnings)
  const region = options.region ?? (env['OS_REGION_NAME'] || undefined)
  const raw = withRegion(chosen, overlay(overlay(defaults, profile), own), region)
  if (!isEnvironment) warnings.push(...readableWarnings(chosen, files))
  return cloudFromRaw(raw, {
    name: chosen,
    source: isEnvironment ? 'the environment (OS_USERNAME ...)' : (files.main?.path ?? files.secure!.path),
    warnings,
    home: options.home ?? env['HOME'],
    cwd: options.cwd ?? process.cwd(),
  })
}

/** The clouds that `loadCloud` would find, and the file they stand in. */
export async function listClouds(options: CloudFiles = {}): Promise<{
  readonly file: string | undefined
  readonly names: readonly string[]
  readonly tried: readonly string[]
}> {
  const files = await readFiles(options)
  return { file: files.main?.path, names: Object.keys(files.clouds), tried: files.tried }
}

type Env = Readonly<Record<string, string | undefined>>

const defaults: Raw = { auth_type: undefined, interface: 'public', auth: {} }

type Files = {
  readonly main: ConfigFile | undefined
  readonly secure: ConfigFile | undefined
  readonly clouds: Raw
  readonly tried: Tried
}

async function readFiles(where: CloudFiles): Promise<Files> {
  const tried: Tried = []
  const main = await readFirst(candidates('clouds', where), tried)
  const secure = await readFirst(candidates('secure', where), [])
  const merged = mergeDeep(main?.content ?? {}, secure?.content ?? {})
  const clouds = merged['clouds'] ?? {}
  if (!isObject(clouds)) throw new CloudConfigError(`Cannot read "${main?.path}": "clouds" is no mapping`)
  return { main, secure, clouds, tried }
}

/** Mappings are merged at every depth, anything else is replaced. */
function mergeDeep(below: Raw, above: Raw): Raw {
  const merged: Raw = { ...below }
  for (const [key, value] of Object.entries(above)) {
    const old = merged[key]
    merged[key] = isObject(value) && isObject(old) ? mergeDeep(old, value) : value
  }
  return merged
}

/** As the clients lay a cloud over its profile: key by key, `auth` merged, a key without a value left alone. */
function overlay(below: Raw, above: Raw): Raw {
  const result: Raw = { ...below }
  for (const [key, value] of Object.entries(above)) {
    if (value === null || value === undefined) continue
    const old = result[key]
    result[key] = key === 'auth' && isObject(old) && isObject(value) ? { ...old, ...value } : value
  }
  return result
}

async function readProfile(name: string, own: Raw, where: CloudFiles, warnings: string[]): Promise<Raw> {
  const profile = own['profile'] ?? own['cloud']
  if (typeof profile !== 'string' || profile === '') return {}
  const file = await readFirst(candidates('clouds-public', where), [])
  const known = file?.content['public-clouds']
  const found = isObject(known) ? known[profile] : undefined
  if (isObject(found)) return found
  warnings.push(
    `Cloud "${name}" names the profile "${profile}", which is in no clouds-public.yaml; the profiles built into the ` +
      'OpenStack clients are not known here: write "auth_url" and "region_name" into the cloud itself',
  )
  return {}
}

/** Chooses one region and lays its values over the cloud's. */
function withRegion(name: string, raw: Raw, wanted: string | undefined): Raw {
  const regions = regionsOf(name, raw)
  const chosen = wanted === undefined ? regions[0] : regions.find(region => region.name === wanted)
  if (chosen === undefined && wanted !== undefined && regions.length > 0)
    throw new CloudConfigError(
      `Cannot use region "${wanted}" of cloud "${name}": it has ${regions.map(region => region.name).join(', ')}`,
      { remedy: 'choose one of these; the case matters' },
    )
  const { regions: _, ...rest } = raw
  return overlay(overlay(rest, chosen?.values ?? {}), { region_name: chosen?.name ?? wanted })
}

function regionsOf(name: string, raw: Raw): readonly { name: string; values: Raw }[] {
  const listed = raw['regions'] ?? raw['region_name']
  const entries: readonly unknown[] =
    typeof listed === 'string' ? listed.split(',').map(each => each.trim()) : Array.isArray(listed) ? listed : []
  return entries
    .filter(entry => entry !== '')
    .map(entry => {
      if (typeof entry === 'string') return { name: entry, values: {} }
      if (isObject(entry) && typeof entry['name'] === 'string')
        return { name: entry['name'], values: isObject(entry['values']) ? entry['values'] : {} }
      throw new CloudConfigError(`Cannot read the regions of cloud "${name}": an entry has no name`)
    })
}

const environmentName = (env: Env) => env['OS_CLOUD_NAME'] || environmentCloud

/** Variables that choose or change a cloud and do not make one. */
const selectors = new Set([
  'OS_CLOUD',
  'OS_REGION_NAME',
  'OS_CLIENT_CONFIG_FILE',
  'OS_CLIENT_SECURE_FILE',
  'OS_CLOUD_NAME',
])

function environmentRaw(env: Env): Raw | undefined {
  const names = Object.keys(env).filter(key => key.startsWith('OS_') && env[key] !== undefined)
  if (names.every(key => selectors.has(key))) return undefined
  return Object.fromEntries(names.map(key => [key.slice('OS_'.length).toLowerCase(), env[key]]))
}

function defaultName(files: Files, fromEnvironment: Raw | undefined, env: Env): string | undefined {
  if (fromEnvironment !== undefined) return environmentName(env)
  const names = Object.keys(files.clouds)
  return names.length === 1 ? names[0] : undefined
}

/** The clients go on silently where the file that was named cannot be used; whoever named it should hear of it. */
function overlooked(files: Files, env: Env): string[] {
  const named = env['OS_CLIENT_CONFIG_FILE']
  if (!named || files.main?.path === named) return []
  return [
    `OS_CLIENT_CONFIG_FILE names "${named}", which cannot be read; ${files.main?.path ?? 'no other file'} is used`,
  ]
}

const secretKeys = ['password', 'application_credential_secret', 'token', 'passcode']

function readableWarnings(name: string, files: Files): string[] {
  return [files.main, files.secure].flatMap(file => {
    const clouds = file?.content['clouds']
    const cloud = isObject(clouds) ? clouds[name] : undefined
    if (file === undefined || !file.worldReadable || !isObject(cloud)) return []
    const auth = isObject(cloud['auth']) ? cloud['auth'] : {}
    const holdsSecret = secretKeys.some(key => key in cloud || key in auth)
    return holdsSecret ? [`"${file.path}" holds a secret and every user may read it: chmod 600 "${file.path}"`] : []
  })
}

function noChoice(files: Files): CloudConfigError {
  const names = Object.keys(files.clouds)
  if (files.main === undefined && names.length === 0)
    return new CloudConfigError(`Cannot choose a cloud: there is no clouds.yaml; tried ${files.tried.join(', ')}`, {
      remedy: 'write one, or name it in OS_CLIENT_CONFIG_FILE',
    })
  return new CloudConfigError(`Cannot choose a cloud: ${files.main?.path} has ${names.join(', ') || 'none'}`, {
    remedy: 'name one, or set OS_CLOUD',
  })
}

function unknownCloud(name: string, files: Files): CloudConfigError {
  const names = Object.keys(files.clouds)
  const where =
    files.main === undefined ? 'there is no clouds.yaml' : `${files.main.path} has ${names.join(', ') || 'none'}`
  const tried = files.tried.length === 0 ? '' : `; tried before: ${files.tried.join(', ')}`
  return new CloudConfigError(`Cannot find cloud "${name}": ${where}${tried}`, {
    remedy:
      files.main === undefined ? 'write one, or name it in OS_CLIENT_CONFIG_FILE' : 'name one of these, or add it',
  })
}
