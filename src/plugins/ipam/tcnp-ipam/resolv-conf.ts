// SPDX-License-Identifier: Apache-2.0

import { readFile } from 'node:fs/promises'
import { CniError, codes, type Dns } from '#cni'

/** Reads a resolv.conf(5). @throws {CniError} 7 naming the file */
export async function readResolvConf(path: string): Promise<Dns> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new CniError(codes.invalidConfig, `Cannot read "resolvConf" ${path}: ${(error as Error).message}`, {
      cause: error,
    })
  })
  return parseResolvConf(text)
}

/** The last `domain` and `search` count, `nameserver` and `options` add up. */
export function parseResolvConf(text: string): Dns {
  const dns: Dns = {}
  for (const line of text.split('\n')) {
    const [key, ...values] = line
      .replace(/[#;].*$/, '')
      .trim()
      .split(/\s+/)
    const [value] = values
    if (value === undefined) continue
    if (key === 'nameserver') dns.nameservers = [...(dns.nameservers ?? []), value]
    else if (key === 'domain') dns.domain = value
    else if (key === 'search') dns.search = values
    else if (key === 'options') dns.options = [...(dns.options ?? []), ...values]
  }
  return dns
}
