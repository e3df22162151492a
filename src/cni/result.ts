// SPDX-License-Identifier: Apache-2.0

/** The result of an ADD in its newest format (CNI 1.1.0); older ones are conversions of it. */
export type Result = {
  interfaces?: Interface[]
  ips?: Ip[]
  routes?: Route[]
  dns?: Dns
}

export type Interface = {
  name: string
  mac?: string
  mtu?: number
  sandbox?: string
  socketPath?: string
  pciID?: string
}

export type Ip = {
  /** CIDR. */
  address: string
  gateway?: string
  /** Index into `interfaces`. */
  interface?: number
}

export type Route = {
  dst: string
  gw?: string
  mtu?: number
  advmss?: number
  priority?: number
  table?: number
  scope?: number
}

export type Dns = { nameservers?: string[]; domain?: string; search?: string[]; options?: string[] }
