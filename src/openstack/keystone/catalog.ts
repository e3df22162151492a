// SPDX-License-Identifier: Apache-2.0
import type { Cloud, EndpointInterface, ServiceType } from '../cloud.ts'

export type CatalogEndpoint = {
  readonly interface: string
  readonly url: string
  readonly region?: string | null
  readonly region_id?: string | null
}
/** One service of the catalog, as Keystone writes it. */
export type CatalogEntry = {
  readonly type: string
  readonly name?: string
  readonly endpoints: readonly CatalogEndpoint[]
}

/** The catalog has no address for a service; `reason` lists what it has. */
export type NoEndpoint = { readonly reason: string }

const versionPaths: Readonly<Record<ServiceType, { readonly present: RegExp; readonly added: string }>> = {
  network: { present: /\/v2\.0$/, added: '/v2.0' },
  // Old catalogs put the project's id behind the version.
  compute: { present: /\/v2(\.1)?(\/[^/]+)?$/, added: '/v2.1' },
}

/** The address of a service, with its version: the configured one, else the catalog's for region and interface. */
export function findEndpoint(
  cloud: Cloud,
  catalog: readonly CatalogEntry[],
  service: ServiceType,
): { readonly url: string } | NoEndpoint {
  const override = cloud.endpoints[service]
  if (override !== undefined) return { url: withVersion(override, service) }
  const entries = catalog.filter(entry => entry.type === service)
  const endpoints = entries.flatMap(entry => entry.endpoints)
  const wanted: EndpointInterface = cloud.interfaces[service] ?? cloud.interface
  const found = endpoints.filter(
    endpoint => endpoint.interface === wanted && (cloud.region === undefined || regionOf(endpoint) === cloud.region),
  )
  const [first] = found
  if (first === undefined) return { reason: whatThereIs(cloud, catalog, service, endpoints, wanted) }
  const regions = new Set(found.map(regionOf))
  if (regions.size > 1)
    return { reason: `the catalog has ${service} in several regions: ${[...regions].join(', ')}; none is chosen` }
  return { url: withVersion(first.url, service) }
}

const regionOf = (endpoint: CatalogEndpoint) => endpoint.region_id ?? endpoint.region ?? ''

function withVersion(url: string, service: ServiceType): string {
  const bare = url.replace(/\/+$/, '')
  const { present, added } = versionPaths[service]
  return present.test(bare) ? bare : `${bare}${added}`
}

function whatThereIs(
  cloud: Cloud,
  catalog: readonly CatalogEntry[],
  service: ServiceType,
  endpoints: readonly CatalogEndpoint[],
  wanted: string,
): string {
  const where = cloud.region === undefined ? '' : ` in region "${cloud.region}"`
  const asked = `the catalog has no ${wanted} endpoint of "${service}"${where}`
  if (catalog.length === 0) return `${asked}: it is empty; the token has no project`
  if (endpoints.length === 0) return `${asked}: it has ${[...new Set(catalog.map(entry => entry.type))].join(', ')}`
  return `${asked}: it has ${endpoints.map(each => `${each.interface} in "${regionOf(each)}"`).join(', ')}`
}
