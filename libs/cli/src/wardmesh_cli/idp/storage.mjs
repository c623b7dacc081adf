// What oidc-provider keeps (registered clients, sign-ins, refresh tokens), in memory and in one file of the state directory.

import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';

const WRITE_DELAY_MS = 200;

class Store {
  constructor(path) {
    this.path = path;
    this.entries = new Map(existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : []);
    this.timer = undefined;
  }

  get(key) {
    const entry = this.entries.get(key);
    if (entry === undefined) return undefined;
    if (entry.until && entry.until <= Date.now()) {
      this.delete(key);
      return undefined;
    }
    return entry.value;
  }

  set(key, value, seconds) {
    this.entries.set(key, { value, until: seconds ? Date.now() + seconds * 1000 : 0 });
    this.changed();
  }

  delete(key) {
    if (this.entries.delete(key)) this.changed();
  }

  changed() {
    this.timer ??= setTimeout(() => this.flush(), WRITE_DELAY_MS);
  }

  flush() {
    clearTimeout(this.timer);
    this.timer = undefined;
    const now = Date.now();
    const alive = [...this.entries].filter(([, entry]) => !entry.until || entry.until > now);
    writeFileSync(`${this.path}.new`, JSON.stringify(alive), { mode: 0o600 });
    renameSync(`${this.path}.new`, this.path);
  }

  under(prefix) {
    return [...this.entries.keys()].filter((key) => key.startsWith(prefix));
  }
}

class Adapter {
  constructor(model, store) {
    this.model = model;
    this.store = store;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload, seconds) {
    const kept = { ...payload };
    // A registered scope must not pin the client: SDK clients register their first scope, then need more (mcp.md 4.2).
    if (this.model === 'Client') delete kept.scope;
    this.store.set(this.key(id), kept, seconds);
    if (payload.uid && this.model === 'Session') this.store.set(`uid:${payload.uid}`, id, seconds);
    if (payload.grantId) this.store.set(`grant:${payload.grantId}:${this.key(id)}`, true, seconds);
  }

  async find(id) {
    return this.store.get(this.key(id));
  }

  async findByUid(uid) {
    const id = this.store.get(`uid:${uid}`);
    return id === undefined ? undefined : this.find(id);
  }

  async findByUserCode() {
    return undefined;
  }

  async consume(id) {
    const payload = this.store.get(this.key(id));
    if (payload === undefined) return;
    payload.consumed = Math.floor(Date.now() / 1000);
    this.store.changed();
  }

  async destroy(id) {
    const payload = this.store.get(this.key(id));
    if (payload?.grantId) this.store.delete(`grant:${payload.grantId}:${this.key(id)}`);
    this.store.delete(this.key(id));
  }

  async revokeByGrantId(grantId) {
    const prefix = `grant:${grantId}:`;
    for (const index of this.store.under(prefix)) {
      this.store.delete(index.slice(prefix.length));
      this.store.delete(index);
    }
  }
}

export function openStorage(path) {
  const store = new Store(path);
  return {
    adapter: (model) => new Adapter(model, store),
    flush: () => store.flush(),
    remember: (key, value, seconds) => store.set(key, value, seconds),
    recall: (key) => store.get(key),
    forget: (key) => store.delete(key),
  };
}
